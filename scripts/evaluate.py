"""Thin door to `bertjax evaluate`."""

import sys

from bertjax.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
