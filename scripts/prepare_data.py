"""Thin door to `bertjax prepare`."""

import sys

from bertjax.cli.main import program

if __name__ == "__main__":
    sys.exit(program("prepare"))
