"""Matrix products in a chosen precision, in the forms that XLA multiplies well."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x_nd: Array, kernel_df: Array, dtype: DTypeLike) -> Array:
    """Returns x @ kernel [n, f] with both rounded to `dtype` and sums in float32; the result's dtype is that of x.

    The gradients are such products too. (Those that JAX derives would multiply float32 by bfloat16, at the rate of
    float32.)

    Args:
      x_nd: float32 or bfloat16.
      kernel_df: float32.
      dtype: what both are rounded to.
    """
    return _product(x_nd, kernel_df, dtype, x_nd.dtype)


def _forward(x_nd: Array, kernel_df: Array, dtype: DTypeLike) -> tuple[Array, tuple[Array, Array]]:
    return _product(x_nd, kernel_df, dtype, x_nd.dtype), (x_nd, kernel_df)


def _backward(dtype: DTypeLike, kept: tuple[Array, Array], grad_nf: Array) -> tuple[Array, Array]:
    x_nd, kernel_df = kept
    grad_nd = _product(grad_nf, _transposed(kernel_df, dtype), dtype, x_nd.dtype)
    grad_df = _product(_transposed(x_nd, dtype), grad_nf, dtype, kernel_df.dtype)
    return grad_nd, grad_df


matmul.defvjp(_forward, _backward)


def _product(a: Array, b: Array, dtype: DTypeLike, result: DTypeLike) -> Array:
    # Accelerators sum in float32 whatever they give; asked for float32, a GPU would write and read twice the bytes.
    given = jnp.float32 if jax.default_backend() == "cpu" else result
    return jnp.dot(a.astype(dtype), b.astype(dtype), preferred_element_type=given).astype(result)


def _transposed(a: Array, dtype: DTypeLike) -> Array:
    """Returns the transposed array, in rows on a CPU unless it is float32.

    Products of bfloat16 are 2 to 3 times slower there on a transposed view.
    """
    a = a.astype(dtype).T
    if dtype == jnp.float32 or jax.default_backend() != "cpu":
        return a
    in_rows: Array = with_layout_constraint(a, Layout((0, 1)))
    return in_rows
