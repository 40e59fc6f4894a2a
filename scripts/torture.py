"""Thin door to `bertjax trial torture`."""

import sys

from bertjax.cli.main import program

if __name__ == "__main__":
    sys.exit(program("trial", "torture"))
