"""Thin door to `bertjax pretrain`."""

import sys

from bertjax.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
