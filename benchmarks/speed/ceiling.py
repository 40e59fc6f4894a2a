"""The highest rates of this machine, through the library that the model runs on."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

_SIZES = (1024, 2048, 4096, 8192)
_COPY_BYTES = 2**28  # more than caches hold
_REPEATS = 8
_LONG_ENOUGH = 0.02  # seconds; a product that takes longer is not tried larger


def measure_ceiling() -> dict[str, Any]:
    """Measures operations a second of float32 and bf16 products, and bytes a second read and written by a copy.

    It is of one device. Every figure is the largest of several repeats, a product's over a few sizes too; float32 is at
    JAX's default precision.
    """
    device = jax.devices()[0]
    return {
        "float32_flops": _product_rate(jnp.float32, jnp.float32),
        # Both kinds of result: which is faster depends on the device.
        "bf16_flops": max(_product_rate(jnp.bfloat16, jnp.float32), _product_rate(jnp.bfloat16, jnp.bfloat16)),
        "copy_bytes_per_second": _copy_rate(_COPY_BYTES),
        "device": device.device_kind,
        "devices": jax.device_count(),
    }


def _product_rate(inputs: Any, result: Any) -> float:
    product = jax.jit(lambda x, y: jnp.matmul(x, y, preferred_element_type=result))
    best = 0.0
    for size in _SIZES:
        x = jax.random.normal(jax.random.key(0), (size, size), inputs)
        seconds = _best_seconds(functools.partial(product, x, x))
        best = max(best, 2 * size**3 / seconds)
        if seconds > _LONG_ENOUGH:
            break
    return best


def _copy_rate(size: int) -> float:
    # The target is given up for the result: fresh pages, slow on their first touch, are not part of a copy.
    copy = jax.jit(lambda source, target: source + 1, donate_argnums=1, keep_unused=True)
    source, target = (jnp.zeros(size // 4, jnp.float32) + number for number in (0, 1))

    def once() -> Array:
        nonlocal target
        target = copy(source, target)
        return target

    return 2 * size / _best_seconds(once)


def _best_seconds(run: Callable[[], Array]) -> float:
    """Returns the least seconds of several repeats, the first, in which XLA compiles, left out."""
    run().block_until_ready()
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run().block_until_ready()
        best = min(best, time.perf_counter() - start)
    return best
