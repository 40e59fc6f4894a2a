"""Activation functions, by the names that configurations have for them."""

import functools
from collections.abc import Callable

import jax
from jax import Array


def exact_gelu(x: Array) -> Array:
    """Returns x times the share of a standard normal distribution below it (Hendrycks and Gimpel 2016).

    Computed by erf, as in BERT and PyTorch. JAX's own is by erfc, which takes XLA's CPUs three times as long.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


# In "geglu" and "swiglu" the result is multiplied by a gate (Shazeer 2020, arXiv:2002.05202, section 2).
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": exact_gelu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "geglu": exact_gelu,
    "swiglu": jax.nn.silu,
}
GATED = ("geglu", "swiglu")
