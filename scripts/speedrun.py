"""Thin door to `bertjax trial speedrun`."""

import sys

from bertjax.cli.main import program

if __name__ == "__main__":
    sys.exit(program("trial", "speedrun"))
