"""The memory of this process."""

import contextlib
import ctypes
import sys


def give_back_freed() -> None:
    """Gives what this process has freed back to the system, where that is Linux with glibc.

    glibc keeps it for itself: after XLA has compiled a large program that is some hundred megabytes, which the arrays
    that follow, too large for its gaps, are then added to.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
