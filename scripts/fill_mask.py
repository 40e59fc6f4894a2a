"""Thin door to `bertjax fill-mask`."""

import sys

from bertjax.cli.main import program

if __name__ == "__main__":
    sys.exit(program("fill-mask"))
