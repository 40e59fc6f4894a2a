"""How far one prediction over a large vocabulary is from another, block by block, without ever holding all the logits.

Letters: b rows, p predictions of a row, c of them in a block, n blocks, d features of either model, v vocabulary.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from bertjax.ops.blockwise import logits_at_once
from bertjax.ops.matmul import matmul


class WordLogits(NamedTuple):
    """Logits of words but for the last product, `hidden_bpd @ kernel_dv + bias_v`."""

    hidden_bpd: Array
    kernel_dv: Array
    bias_v: Array


def blockwise_kl(
    ours: WordLogits,
    theirs: WordLogits,
    weights_bp: Array,
    *,
    temperature: float,
    dtype: DTypeLike = jnp.float32,
    row_shards: int = 1,
) -> Array:
    """Returns the total of temperature**2 * KL(softmax(theirs / temperature) || softmax(ours / temperature)), in nats.

    The square keeps the size of gradients whatever the temperature (Hinton et al. 2015, arXiv:1503.02531, section 2).

    Args:
      weights_bp: float32, 1 or 0.
      dtype: what products are rounded to; sums and softmax are float32.
      row_shards: equal parts that devices share the rows in; a block is a part of each row's predictions.
    """
    (b, p), v = weights_bp.shape, len(ours.bias_v)
    blocks = min(p, -(-b * p * v // (row_shards * logits_at_once())))
    c = -(-p // blocks)

    def in_blocks(x_bp: Array) -> Array:
        """[b, p, ...] -> [n, b, c, ...], filled up with zeros."""
        x_bp = jnp.pad(x_bp, [(0, 0), (0, blocks * c - p)] + [(0, 0)] * (x_bp.ndim - 2))
        return x_bp.reshape(b, blocks, c, *x_bp.shape[2:]).swapaxes(0, 1)

    def log_shares(hidden_bcd: Array, of: WordLogits) -> Array:
        logits_mv = matmul(hidden_bcd.reshape(b * c, -1).astype(jnp.float32), of.kernel_dv, dtype) + of.bias_v[None]
        return jax.nn.log_softmax(logits_mv / temperature)

    # The logits are made again on the way back: a block's are all that is held.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_block(ours_bcd: Array, theirs_bcd: Array, weights_bc: Array) -> Array:
        our_mv, their_mv = log_shares(ours_bcd, ours), log_shares(theirs_bcd, theirs)
        return ((jnp.exp(their_mv) * (their_mv - our_mv)).sum(-1) * weights_bc.reshape(-1)).sum()

    def add_block(total: Array, block: tuple[Array, Array, Array]) -> tuple[Array, None]:
        return total + of_block(*block), None

    each = (in_blocks(ours.hidden_bpd), in_blocks(theirs.hidden_bpd), in_blocks(weights_bp))
    return temperature**2 * lax.scan(add_block, jnp.zeros(()), each)[0]
