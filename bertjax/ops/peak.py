"""How fast a device multiplies matrices: what the rates of models are held against."""

import time

import jax
from jax.typing import DTypeLike

from bertjax.ops.matmul import matmul

_SECONDS = 0.3
_AT_ONCE = 64  # products that the host waits for together, at most


def product_rate(dtype: DTypeLike, device: jax.Device, *, size: int | None = None) -> float:
    """Returns the operations a second of square products as the models make them, measured within a second.

    Args:
      dtype: of what is multiplied.
      device: a device of this process. One of several CPU devices uses all its cores.
      size: rows and columns; by default so many that a product is large for the device.
    """
    n = size or (2048 if device.platform == "cpu" else 4096)
    x_nn = jax.device_put(jax.random.normal(jax.random.key(0), (n, n)) * n**-0.5, device)
    multiply = jax.jit(lambda x_nn: matmul(x_nn, x_nn, dtype))
    multiply(x_nn).block_until_ready()
    best, at_once, end = 0.0, 1, time.perf_counter() + _SECONDS
    while best == 0 or time.perf_counter() < end:
        start = time.perf_counter()
        y_nn = x_nn
        for _ in range(at_once):  # each waits for the one before; the host for the last, as seldom as it can
            y_nn = multiply(y_nn)
        y_nn.block_until_ready()
        best = max(best, at_once * 2 * n**3 / (time.perf_counter() - start))
        at_once = min(2 * at_once, _AT_ONCE, max(1, round(best * _SECONDS / 4 / (2 * n**3))))
    return best
