"""Thin door to `bertjax bench`."""

import sys

from bertjax.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
