"""Devices that JAX cannot give, and numbers that it is not to make."""

import jax
import pytest
from refusals import refusal

from bertjax.parallel.sharding import find_devices, make_mesh


@pytest.mark.parametrize(
    "error, said",
    [
        (
            RuntimeError("Unable to initialize backend 'rocm': not known. (set JAX_PLATFORMS='' to choose)"),
            "'rocm': not known);",
        ),
        (AssertionError(), "; unset it to take"),
    ],
)
def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def devices() -> None:
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    for call in (find_devices, make_mesh):
        assert said in refusal(call) and f"JAX_PLATFORMS={jax.config.jax_platforms}" in refusal(call)


def test_float64() -> None:
    with jax.enable_x64(True):
        assert "JAX_ENABLE_X64 is on" in refusal(make_mesh)
    assert find_devices() == jax.devices()
