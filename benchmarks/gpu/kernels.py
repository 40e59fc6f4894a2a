"""Which kernels a GPU spends its time in, by JAX's profiler."""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

# By kernels' names, the first that fits; the rest are XLA's own fusions.
_KINDS = (
    ("attention", r"fmha|flash|sdpa|cudnn_generated"),
    ("products", r"gemm|cutlass|cublas|nvjet|xmma|dot"),
    ("copies", r"(?i)memcpy|memset|copy"),
)


class Kernel(NamedTuple):
    """One that ran."""

    name: str
    seconds: float


def kernels_of(run: Callable[[], Any]) -> list[Kernel]:
    """Runs something and returns what the GPUs ran meanwhile; nothing where there are none."""
    with tempfile.TemporaryDirectory(prefix="bertjax-trace-") as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        traces = [jax.profiler.ProfileData.from_file(str(path)) for path in Path(folder).rglob("*.xplane.pb")]
        planes = [plane for trace in traces for plane in trace.planes if plane.name.startswith("/device:GPU")]
        streams = [line for plane in planes for line in plane.lines if line.name.startswith("Stream")]
        return [Kernel(event.name, event.duration_ns / 1e9) for line in streams for event in line.events]


def shares(kernels: Iterable[Kernel]) -> dict[str, float]:
    """Returns the share of the time that each kind of kernel took, the greatest first."""
    seconds: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        kind = next((kind for kind, names in _KINDS if re.search(names, kernel.name)), "fusions")
        seconds[kind] += kernel.seconds
    return {kind: seconds[kind] / sum(seconds.values()) for kind in _by_value(seconds)}


def longest(kernels: Iterable[Kernel], number: int) -> list[dict[str, Any]]:
    """Returns the kernels that took the most time in all: name, times that it ran, and seconds in all."""
    seconds: dict[str, float] = defaultdict(float)
    times = Counter[str]()
    for kernel in kernels:
        seconds[kernel.name] += kernel.seconds
        times[kernel.name] += 1
    return [{"name": name, "times": times[name], "seconds": seconds[name]} for name in _by_value(seconds)[:number]]


def _by_value(values: dict[str, float]) -> list[str]:
    """The keys, that of the greatest value first."""
    return sorted(values, key=lambda key: -values[key])
