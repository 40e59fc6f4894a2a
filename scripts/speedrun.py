"""Thin door to `bertjax trial speedrun`."""

import sys

from bertjax.cli import program

if __name__ == "__main__":
    sys.exit(program("trial", "speedrun"))
