"""Products in bfloat16: values and gradients, and that they really are made in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.ops.matmul import matmul

X, KERNEL, G = (jnp.array(np.random.default_rng(i).normal(size=shape), jnp.float32) for i, shape in
                enumerate([(40, 24), (24, 56), (40, 56)]))  # fmt: skip


def with_gradients(dtype: type, x: jax.Array = X) -> tuple[jax.Array, ...]:
    y, pull_back = jax.vjp(lambda x, kernel: matmul(x, kernel, dtype), x, KERNEL)
    return y, *pull_back(G.astype(y.dtype))


def test_float32_is_the_plain_product() -> None:
    expected = (X @ KERNEL, G @ KERNEL.T, X.T @ G)
    for ours, theirs in zip(with_gradients(jnp.float32), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_bfloat16_rounds_what_is_multiplied_and_nothing_else() -> None:
    x, kernel, g = (np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (X, KERNEL, G))
    for ours, theirs in zip(with_gradients(jnp.bfloat16), (x @ kernel, g @ kernel.T, x.T @ g), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_result_has_the_inputs_dtype_and_the_kernels_gradient_the_kernels() -> None:
    y, grad_x, grad_kernel = with_gradients(jnp.bfloat16, X.astype(jnp.bfloat16))
    assert (y.dtype, grad_x.dtype, grad_kernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_all_three_products_are_made_in_the_dtype(dtype: type) -> None:
    program = str(jax.make_jaxpr(lambda: with_gradients(dtype))())
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert len(products) == 3
    assert program.count("bf16[") > 3 if dtype == jnp.bfloat16 else "bf16[" not in program
