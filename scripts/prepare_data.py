"""Thin door to `bertjax prepare`."""

import sys

from bertjax.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
