"""The vector of a text, made of those of its tokens: pooling, then the layers that sentence-transformers puts after it.

Letters: b rows, t tokens of a row, k sequences of a row, d hidden, e and f sizes of a text's vector.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import BertConfig
from bertjax.models.heads import ClassificationHead
from bertjax.ops.activations import exact_gelu

# In the order in which sentence-transformers puts several, one after the other.
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {  # by the names of PyTorch's modules, as they are by default
    "Identity": lambda x: x,
    "Tanh": jnp.tanh,
    "ReLU": jax.nn.relu,
    "GELU": exact_gelu,
    "SiLU": jax.nn.silu,
    "Sigmoid": jax.nn.sigmoid,
}


def pool(
    kinds: Sequence[str], x_btd: Array, positions_bt: Array, sequences_bt: Array, *, num_sequences: int, skip: int = 0
) -> Array:
    """Returns a vector of each sequence, for several kinds of pooling one after the other, float32 [b, k, kinds * d].

    Args:
      kinds: of `POOLINGS`: the first token; the maximum or the mean over all; their sum divided by the root of their
        number; a mean in which each weighs its position, from 1 on; the last token.
      x_btd: what is pooled; at padding it may be anything.
      positions_bt: of each token in its sequence, from 0 on.
      sequences_bt: the number of each token's sequence, from 1 on; 0 at padding.
      num_sequences: k; those that are not there get zeros, or for "max" negative infinity.
      skip: tokens at the start of each sequence that are left out, as of a prompt.
    """
    inside_bkt = sequences_bt[:, None] == 1 + jnp.arange(num_sequences)[None, :, None]
    pooled_bkt = inside_bkt & (positions_bt >= skip)[:, None]
    # What stands at padding may be anything, and 0 times it must be 0.
    zeroed_btd = jnp.where(sequences_bt[:, :, None] > 0, x_btd, 0)

    def pooled(kind: str) -> Array:
        if kind == "max":
            # Sequence 0 is padding.
            of_row = functools.partial(jax.ops.segment_max, num_segments=num_sequences + 1)
            return jax.vmap(of_row)(x_btd, jnp.where(positions_bt >= skip, sequences_bt, 0))[:, 1:]
        weights_bkt = pooled_bkt
        if kind == "cls":
            weights_bkt = pooled_bkt & (positions_bt == skip)[:, None]
        elif kind == "lasttoken":
            weights_bkt = pooled_bkt & (positions_bt[:, None] == inside_bkt.sum(-1, keepdims=True) - 1)
        elif kind == "weightedmean":
            weights_bkt = pooled_bkt * (positions_bt + 1)[:, None]
        totals_bk1 = jnp.maximum(weights_bkt.sum(-1, keepdims=True), 1)
        if kind == "mean_sqrt_len_tokens":
            totals_bk1 = jnp.sqrt(totals_bk1)
        return jnp.einsum("bkt,btd->bkd", weights_bkt / totals_bk1, zeroed_btd)

    return jnp.concatenate([pooled(kind) for kind in kinds], axis=-1)


# Layers: each is a function of vectors [b, k, e].


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Dense:
    """A linear layer and an activation; perhaps what came in is added, as it is or through another linear layer."""

    kernel_ef: Array
    bias_f: Array | None
    residual_ef: Array | None
    activation: str = dataclasses.field(metadata={"static": True})  # of ACTIVATIONS
    residual: bool = dataclasses.field(metadata={"static": True})

    def __call__(self, x_bke: Array) -> Array:
        y_bkf = jnp.einsum("bke,ef->bkf", x_bke, self.kernel_ef, precision="highest")
        y_bkf = ACTIVATIONS[self.activation](y_bkf if self.bias_f is None else y_bkf + self.bias_f[None, None])
        if not self.residual:
            return y_bkf
        if self.residual_ef is None:
            return y_bkf + x_bke
        return y_bkf + jnp.einsum("bke,ef->bkf", x_bke, self.residual_ef, precision="highest")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LayerNorm:
    """A layer norm, with PyTorch's default epsilon."""

    scale_e: Array
    bias_e: Array

    def __call__(self, x_bke: Array) -> Array:
        centred_bke = x_bke - x_bke.mean(-1, keepdims=True)
        scales_bk1 = jax.lax.rsqrt(jnp.square(centred_bke).mean(-1, keepdims=True) + 1e-5)
        return centred_bke * scales_bk1 * self.scale_e[None, None] + self.bias_e[None, None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Normalize:
    """Scales each vector to length 1; one of zeros stays."""

    def __call__(self, x_bke: Array) -> Array:
        return x_bke / jnp.maximum(jnp.linalg.norm(x_bke, axis=-1, keepdims=True), 1e-12)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Truncate:
    """Keeps the first numbers of each vector, which matter most where a model was trained so."""

    size: int = dataclasses.field(metadata={"static": True})

    def __call__(self, x_bke: Array) -> Array:
        return x_bke[..., : self.size]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """Makes logits of labels, as the head of a model that was fine-tuned tells them."""

    params: dict[str, Any]  # of `ClassificationHead`
    config: BertConfig = dataclasses.field(metadata={"static": True})
    num_labels: int = dataclasses.field(metadata={"static": True})

    def __call__(self, x_bke: Array) -> Array:
        head = ClassificationHead(self.config, jnp.float32, self.num_labels)
        with jax.default_matmul_precision("highest"):
            logits_mc = head.apply({"params": self.params}, x_bke.reshape(-1, x_bke.shape[-1]), train=False)
        return jnp.reshape(logits_mc, (*x_bke.shape[:2], -1))


Layer = Dense | LayerNorm | Normalize | Truncate | Labelled


def apply_layers(layers: Sequence[Layer], x_bke: Array) -> Array:
    """Returns what the layers make of vectors, one layer after the other, float32 [b, k, f]."""
    for layer in layers:
        x_bke = layer(x_bke)
    return x_bke


def vector_size(layers: Sequence[Layer], size: int) -> int:
    """Returns the size of the vectors that the layers make of vectors of `size`."""
    made: int = jax.eval_shape(apply_layers, layers, jax.ShapeDtypeStruct((1, 1, size), jnp.float32)).shape[-1]
    return made
