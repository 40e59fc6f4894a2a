"""The processor cores of this process."""

import os


def num_cores() -> int:
    """Returns how many cores this process may run on; as many as there are where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
