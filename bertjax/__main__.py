"""`python -m bertjax` is `bertjax`."""

import sys

from bertjax.cli.main import program

if __name__ == "__main__":
    sys.exit(program())
