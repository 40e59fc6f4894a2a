"""Thin door to `bertjax encode`."""

import sys

from bertjax.cli import main

if __name__ == "__main__":
    sys.exit(main(["encode", *sys.argv[1:]]))
