"""Memory of the devices: how much of it a program may take, and one line where there is too little."""

import contextlib
import re
from collections.abc import Iterator

import jax

from bertjax.errors import BertjaxError
from bertjax.storage.memory import available_memory

_USED = 0.9  # of a device's memory, at most: what is freed there leaves gaps


def device_memory() -> int | None:
    """Returns how much memory a program may take of each device, in bytes; None where the devices do not tell."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        there = available_memory()
        return None if there is None else int(there * _USED) // len(devices)
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    known = [limit for limit in limits if limit]
    return int(min(known) * _USED) if known else None


def in_words(size: float) -> str:
    """Returns a number of bytes as people write it, such as "79.1 GB"."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


@contextlib.contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """Turns what JAX raises where memory runs out into a BertjaxError.

    Args:
      remedy: what to do about it, such as "give fewer texts at a time".
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        told = str(error)
        if not re.search("RESOURCE_EXHAUSTED|OUT_OF_MEMORY", told):
            raise
        asked = re.search(r"allocat\w* (\d+) bytes", told)
        more = f", where {in_words(int(asked[1]))} more were needed at once" if asked else ""
        raise BertjaxError(f"there is not enough memory on {jax.devices()[0].platform}{more}; {remedy}") from error
