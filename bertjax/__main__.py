"""`python -m bertjax` is `bertjax`."""

import sys

from bertjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
