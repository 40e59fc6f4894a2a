"""How fast a device multiplies."""

import types

import jax
import jax.numpy as jnp
import pytest

from bertjax.ops import peak
from bertjax.ops.peak import product_rate


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_rate_is_of_operations_not_of_products(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # When it begins; around one product, and whether there is time for more; around one product, and so on.
    times = iter([0.0, *(1.0, 1.5, 1.6), *(2.0, 2.25, 2.3), *(3.0, 3.75, 99.0)])
    monkeypatch.setattr(peak, "_SECONDS", 10.0)
    monkeypatch.setattr(peak, "_AT_ONCE", 1)
    monkeypatch.setattr(peak, "time", types.SimpleNamespace(perf_counter=lambda: next(times)))
    assert product_rate(jnp.dtype(dtype), jax.devices()[0], size=64) == pytest.approx(2 * 64**3 / 0.25)
