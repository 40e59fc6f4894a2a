"""The memory of this process."""

import contextlib
import ctypes
import re
import sys
from pathlib import Path

# What a container may use, what it uses, and what of that the system would give up, by the version of control groups.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def give_back_freed() -> None:
    """Gives what this process has freed back to the system, where that is Linux with glibc.

    glibc keeps it for itself: after XLA has compiled a large program that is some hundred megabytes, which the arrays
    that follow, too large for its gaps, are then added to.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def available_memory() -> int | None:
    """Returns how much more memory processes may take without swapping, in bytes; None where the system is no Linux."""
    try:
        found = re.search(r"^MemAvailable: *(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    there = [int(found[1]) * 1024] if found else []
    for limit, used, given_up in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is none
            most, stat = int(Path(limit).read_text()), Path(limit).with_name("memory.stat").read_text()
            cache = re.search(rf"^{given_up} (\d+)$", stat, re.MULTILINE)
            there.append(max(0, most - int(Path(used).read_text()) + (int(cache[1]) if cache else 0)))
    return min(there, default=None)
