"""The environment of the benchmarks' processes; the standard library is enough to import this."""

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def with_checkout(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment in which `python -m benchmarks...` and `-m bertjax` are this checkout's, in any folder."""
    path = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(path)}
