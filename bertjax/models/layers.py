"""Linear layers and norms, of which everything else is made.

Linear layers take [n, d] rather than [b, t, d]: XLA multiplies two-dimensional arrays several times faster on CPUs.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import initializers
from jax.typing import DTypeLike

from bertjax.config import BertConfig
from bertjax.ops.matmul import matmul


class Weights(nn.Module):
    """The kernel [features in, features] of a linear layer, and its bias [features], None where it has none."""

    features: int
    config: BertConfig
    biased: bool
    bias_init: Callable[..., Array] | None = None  # by default as the configuration says
    gain: float = 1.0  # of the kernel's initial weights, over what the configuration says

    @nn.compact
    def __call__(self, features_in: int) -> tuple[Array, Array | None]:
        kernel_init, bias_init = linear_initializers(self.config, fan_in=features_in)
        gain = self.gain
        scaled = kernel_init if gain == 1 else lambda *args: gain * kernel_init(*args)
        kernel = self.param("kernel", scaled, (features_in, self.features))
        return kernel, self.param("bias", self.bias_init or bias_init, (self.features,)) if self.biased else None


class Linear(nn.Module):
    """x @ kernel + bias on [n, features in] -> [n, features], its product made in `dtype`."""

    features: int
    config: BertConfig
    dtype: DTypeLike
    bias_init: Callable[..., Array] | None = None  # as `Weights` has it, and so is gain
    gain: float = 1.0

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        weights = Weights(self.features, self.config, self.config.biases, self.bias_init, self.gain)
        nn.share_scope(self, weights)  # its kernel and bias are ours
        kernel_df, bias_f = weights(x_nd.shape[-1])
        y_nf = matmul(x_nd, kernel_df, self.dtype)
        return y_nf if bias_f is None else y_nf + bias_f[None].astype(x_nd.dtype)


def linear_initializers(config: BertConfig, fan_in: int) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Returns those of kernel and bias: BERT's, or `torch.nn.Linear`'s, uniform within 1/sqrt(fan_in) of 0."""
    if config.init == "bert":
        return _by_place(initializers.truncated_normal(config.init_scale)), initializers.zeros
    bound = fan_in**-0.5

    def uniform(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return _by_place(uniform), _by_place(uniform)


def embedding_initializer(config: BertConfig) -> Callable[..., Array]:
    """Returns that of tables of embeddings: BERT's, or `torch.nn.Embedding`'s."""
    bert = config.init == "bert"
    return _by_place(initializers.truncated_normal(config.init_scale) if bert else initializers.normal(1.0))


_LEAST_DRAWN = 2**16  # numbers


def _by_place(initializer: Callable[..., Array]) -> Callable[..., Array]:
    """The same initializer, of which all small arrays share a program: to compile one takes longer than to draw.

    An element's bits depend on its place in row-major order alone (jax_threefry_partitionable), so that an array is the
    beginning of any longer one.
    """

    def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return _beginning(initializer(key, (max(math.prod(shape), _LEAST_DRAWN),), dtype), shape)

    return init


@functools.partial(jax.jit, static_argnums=1)
def _beginning(flat: Array, shape: tuple[int, ...]) -> Array:
    return flat[: math.prod(shape)].reshape(shape)


class Norm(nn.Module):
    """Layer norm (Ba et al. 2016, arXiv:1607.06450), or root mean square norm (Zhang and Sennrich 2019).

    Computed in float32; the result's dtype is that of the input.
    """

    config: BertConfig

    @nn.compact
    def __call__(self, x_nd: Array) -> Array:
        c = self.config
        norm: nn.Module
        if c.norm_kind == "rms":
            norm = nn.RMSNorm(c.layer_norm_eps, dtype=x_nd.dtype)
        else:
            norm = nn.LayerNorm(c.layer_norm_eps, dtype=x_nd.dtype, use_bias=c.biases, use_fast_variance=False)
        nn.share_scope(self, norm)  # its scale and bias are ours
        return norm(x_nd)
