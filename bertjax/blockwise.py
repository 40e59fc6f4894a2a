"""Cross-entropy over a large vocabulary, block by block, without ever holding all the logits.

The logits of a batch, predictions times vocabulary, are most of a small BERT's memory and time. Here a block of them is
made, turned into its losses and its share of the gradients, and forgotten. The gradients are made on the way forward,
while the logits are at hand: the same three matrix products as without blocks, none of them twice.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

# Logits held at once, on each device. On a CPU a block is to stay in the cache and below the 32 MiB from which
# malloc takes fresh pages from the system each time.
_BLOCK_ON_CPU = 2**22
_BLOCK = 2**28


class Scores(NamedTuple):
    """Of each prediction; no gradient flows through them."""

    loss_m: Array  # float32, cross-entropy in nats
    hit_m: Array  # float32, 1 where no token is likelier than the label, else 0


def blockwise_cross_entropy(
    hidden_md: Array,
    kernel_dv: Array,
    bias_v: Array,
    labels_m: Array,
    weights_m: Array,
    *,
    dtype: DTypeLike = jnp.float32,
    shards: int = 1,
    block_rows: int | None = None,
) -> tuple[Array, Scores]:
    """Cross-entropy of softmax(hidden @ kernel + bias): its weighted total, which has gradients, and the scores.

    Args:
      labels_m: int32, below v.
      weights_m: of each prediction in the total; float32, without a gradient.
      dtype: what products are rounded to; sums, softmax and losses are float32.
      shards: equal parts of m that lie on different devices; their gradients are added up once, after the last block.
      block_rows: predictions a block, on each device; by default as many as 2**22 logits on a CPU and 2**28 elsewhere.
    """
    m, v = len(labels_m), len(bias_v)
    if block_rows is None:
        block_rows = max(1, (_BLOCK_ON_CPU if jax.default_backend() == "cpu" else _BLOCK) // v)
    blocks = -(-m // (shards * block_rows))
    c = -(-m // (shards * blocks))

    def in_blocks(x_m: Array) -> Array:
        """[m, ...] -> [blocks, shards, c, ...], filled up with zeros."""
        x_m = jnp.pad(x_m, [(0, shards * blocks * c - m)] + [(0, 0)] * (x_m.ndim - 1))
        return x_m.reshape(shards, blocks, c, *x_m.shape[1:]).swapaxes(0, 1)

    rows = tuple(map(in_blocks, (hidden_md, labels_m, weights_m)))
    total, scores = _total_and_scores(*rows, kernel_dv, bias_v, dtype)
    return total, Scores(*(score_nsc.swapaxes(0, 1).reshape(-1)[:m] for score_nsc in scores))


# Letters from here on: n blocks, s shards, c predictions of a block on a shard.


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _total_and_scores(
    hidden_nscd: Array, labels_nsc: Array, weights_nsc: Array, kernel_dv: Array, bias_v: Array, dtype: DTypeLike
) -> tuple[Array, Scores]:
    kernel_dv = kernel_dv.astype(dtype)

    def one_block(total: Array, block: tuple[Array, Array, Array]) -> tuple[Array, Scores]:
        hidden_scd, labels_sc, weights_sc = block
        _, _, scores = _logits_and_scores(hidden_scd, labels_sc, kernel_dv, bias_v, dtype)
        return total + (scores.loss_m * weights_sc).sum(), scores

    return lax.scan(one_block, jnp.zeros(()), (hidden_nscd, labels_nsc, weights_nsc))


def _forward(
    hidden_nscd: Array, labels_nsc: Array, weights_nsc: Array, kernel_dv: Array, bias_v: Array, dtype: DTypeLike
) -> tuple[tuple[Array, Scores], tuple[Array, Array, Array]]:
    shards, c, d = hidden_nscd.shape[1:]
    kernel_vd, kernel_dv = kernel_dv.T.astype(dtype), kernel_dv.astype(dtype)
    hidden_nscd = hidden_nscd.astype(dtype)
    # Transposed here, not in the loop: as a loop's input it is written out, which CPUs need to multiply bfloat16 fast.
    hidden_nsdc = hidden_nscd.swapaxes(2, 3)
    one_s1c = jnp.ones((shards, 1, c), dtype)

    def one_block(sums: tuple, block: tuple) -> tuple[tuple, tuple]:
        total, grad_kernel_sdv, grad_bias_s1v = sums
        hidden_scd, hidden_sdc, labels_sc, weights_sc = block
        logits_scv, lse_sc, scores = _logits_and_scores(hidden_scd, labels_sc, kernel_dv, bias_v, dtype)
        is_label_scv = jnp.arange(len(bias_v))[None, None] == labels_sc[..., None]
        grad_scv = (jnp.exp(logits_scv - lse_sc[..., None]) - is_label_scv) * weights_sc[..., None]
        grad_scv = grad_scv.astype(dtype)
        sums = (
            total + (scores.loss_m * weights_sc).sum(),
            grad_kernel_sdv + _matmul("sdc,scv->sdv", hidden_sdc, grad_scv),
            # Not grad_scv.sum(): XLA sums down long columns on a CPU at a tenth of this rate.
            grad_bias_s1v + _matmul("sic,scv->siv", one_s1c, grad_scv),
        )
        return sums, (_matmul("scv,vd->scd", grad_scv, kernel_vd), scores)

    zeros = (jnp.zeros(()), jnp.zeros((shards, d, len(bias_v))), jnp.zeros((shards, 1, len(bias_v))))
    sums, (grad_hidden_nscd, scores) = lax.scan(one_block, zeros, (hidden_nscd, hidden_nsdc, labels_nsc, weights_nsc))
    total, grad_kernel_sdv, grad_bias_s1v = sums
    return (total, scores), (grad_hidden_nscd, grad_kernel_sdv.sum(0), grad_bias_s1v.sum((0, 1)))


def _backward(dtype: DTypeLike, grads: tuple[Array, Array, Array], cotangents: tuple[Array, Scores]) -> tuple:
    grad_hidden, grad_kernel, grad_bias = (grad * cotangents[0] for grad in grads)
    return grad_hidden, None, None, grad_kernel, grad_bias


_total_and_scores.defvjp(_forward, _backward)


def _logits_and_scores(
    hidden_scd: Array, labels_sc: Array, kernel_dv: Array, bias_v: Array, dtype: DTypeLike
) -> tuple[Array, Array, Scores]:
    """Logits [s, c, v], their log-sum-exp [s, c], and the scores."""
    logits_scv = _matmul("scd,dv->scv", hidden_scd.astype(dtype), kernel_dv) + bias_v[None, None]
    of_label_sc = jnp.take_along_axis(logits_scv, labels_sc[..., None], axis=-1)[..., 0]
    highest_sc = logits_scv.max(axis=-1)
    lse_sc = highest_sc + jnp.log(jnp.exp(logits_scv - highest_sc[..., None]).sum(axis=-1))
    # Not argmax: over a vocabulary of 20,256, XLA took 24 times as long for it as for the maximum on a CPU.
    return logits_scv, lse_sc, Scores(lse_sc - of_label_sc, (of_label_sc >= highest_sc).astype(jnp.float32))


def _matmul(letters: str, a: Array, b: Array) -> Array:
    return jnp.einsum(letters, a, b, preferred_element_type=jnp.float32)
