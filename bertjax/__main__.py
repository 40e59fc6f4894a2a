"""`python -m bertjax` is `bertjax`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder it is started in, where a types.py would take the place of Python's own

    from bertjax.cli.main import program

    sys.exit(program())
