"""Thin door to `bertjax encode`."""

import sys

from bertjax.cli.main import program

if __name__ == "__main__":
    sys.exit(program("encode"))
