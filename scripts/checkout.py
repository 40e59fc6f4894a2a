"""A door to modules of this checkout that are not installed; the scripts beside it use it."""

import os
import sys
from pathlib import Path
from typing import NoReturn


def run(module: str, *argv: str) -> NoReturn:
    """Becomes `python -m MODULE` of this checkout, with these arguments and those given; works from any folder."""
    if sys.version_info < (3, 11):  # noqa: UP036
        found = sys.version.split()[0]
        sys.exit(f"bertjax needs Python 3.11 or later, and this is {found}; try python3.12 {sys.argv[0]}")
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    # -P: a folder named "benchmarks" where the user stands is another.
    os.execve(sys.executable, [sys.executable, "-P", "-m", module, *argv, *sys.argv[1:]], environment)
