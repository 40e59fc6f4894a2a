"""Thin door to `bertjax neighbours`."""

import sys

from bertjax.cli.main import program

if __name__ == "__main__":
    sys.exit(program("neighbours"))
