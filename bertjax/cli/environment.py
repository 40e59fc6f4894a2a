"""The environment variables that suit a process that trains or encodes."""

import contextlib
import os
import sys
from collections.abc import Mapping

from bertjax.errors import BertjaxError
from bertjax.runs.signals import held_back

_MALLOC = "GLIBC_TUNABLES"


def tuned_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Adds huge pages for large arrays on Linux, and a folder in the user's cache for compiled programs.

    What is set already stays. Without huge pages each step's arrays are handed out by the system in pages of 4 KiB: the
    textbook recipe took 1.3 times as long on two CPU cores.
    """
    from bertjax.storage.cache import cache_folder

    ours = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    with contextlib.suppress(BertjaxError, OSError):  # no home folder, or one to read only: nothing is kept
        programs = cache_folder() / "programs"
        programs.mkdir(parents=True, exist_ok=True)
        if os.access(programs, os.W_OK):
            ours["JAX_COMPILATION_CACHE_DIR"] = str(programs)
    if sys.platform == "linux":
        ours[_MALLOC] = "glibc.malloc.hugetlb=1"
    return ours | dict(environment)


def tune_this_process() -> None:
    """Gives this process the tuned environment, before jax is imported; starts the process again where it must."""
    environment = tuned_environment(os.environ)
    # malloc reads its settings when a process starts, so this one starts again, once.
    if environment.get(_MALLOC) != os.environ.get(_MALLOC) and sys.executable:
        with held_back(), contextlib.suppress(OSError):  # it is only slower without
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    os.environ.update(environment)
