"""Cross-entropy over a large vocabulary, block by block, without ever holding all the logits.

The logits of a batch, predictions times vocabulary, are most of a small BERT's memory and time. Here a block of them is
made, turned into its losses and its share of the gradients, and forgotten. The gradients are made on the way forward,
while the logits are at hand: the same three matrix products as without blocks, none of them twice.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

# Logits held at once, on each device. On a CPU a block is to stay in the cache and below the 32 MiB from which
# malloc takes fresh pages from the system each time.
_BLOCK_ON_CPU = 2**22
_BLOCK = 2**28


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
) -> tuple[Array, Array]:
    """Cross-entropy of softmax(hidden @ kernel + bias) in nats, and how often no token is likelier than the label.

    Args:
      labels_m: int32, below v.
      weights_m: float32, 1 or 0; predictions of weight 0 are left out of the work too.
      dtype: what products are rounded to; sums, softmax and losses are float32.
      shards: equal parts of m that lie on different devices; their gradients are added up once, after the last block.
      block_rows: predictions a block, on each device; by default as many as 2**22 logits on a CPU and 2**28 elsewhere.

    Returns:
      the totals of both over predictions of weight 1. The first has gradients, but not for the weights.
    """
    if block_rows is None:
        block_rows = max(1, (_BLOCK_ON_CPU if jax.default_backend() == "cpu" else _BLOCK) // len(bias_v))
    on_a_shard = -(-len(labels_m) // shards)
    blocks = -(-on_a_shard // block_rows)
    c = -(-on_a_shard // blocks)

    def by_shard(x_m: Array) -> Array:
        """[m, ...] -> [shards, m / shards, ...]"""
        x_m = jnp.pad(x_m, [(0, shards * on_a_shard - len(x_m))] + [(0, 0)] * (x_m.ndim - 1))
        return x_m.reshape(shards, on_a_shard, *x_m.shape[1:])

    # Those that count come first on each shard, so that the last blocks, which have none, need not be made.
    last_sm = jnp.argsort(by_shard(weights_m) == 0, axis=1, stable=True)

    def in_blocks(x_m: Array) -> Array:
        """[m, ...] -> [blocks, shards, c, ...], filled up with zeros."""
        x_sm = by_shard(x_m)
        x_sm = jnp.take_along_axis(x_sm, last_sm.reshape(*last_sm.shape, *[1] * (x_sm.ndim - 2)), axis=1)
        x_sm = jnp.pad(x_sm, [(0, 0), (0, blocks * c - on_a_shard)] + [(0, 0)] * (x_sm.ndim - 2))
        return x_sm.reshape(shards, blocks, c, *x_sm.shape[2:]).swapaxes(0, 1)

    # The bias is one more row of the kernel, that of a feature which is 1: its gradient comes with the kernel's.
    hidden_md = jnp.pad(hidden_md.astype(jnp.float32), [(0, 0), (0, 1)], constant_values=1)
    kernel_dv = jnp.concatenate([kernel_dv, bias_v[None]])
    return _totals(*map(in_blocks, (hidden_md, labels_m, weights_m)), kernel_dv, dtype)


# Letters from here on: n blocks, s shards, c predictions of a block on a shard; d counts the bias's feature.


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _totals(
    hidden_nscd: Array, labels_nsc: Array, weights_nsc: Array, kernel_dv: Array, dtype: DTypeLike
) -> tuple[Array, Array]:
    hidden_nscd, kernel_dv = hidden_nscd.astype(dtype), kernel_dv.astype(dtype)

    def add_block(n: Array, totals_s2: Array) -> Array:
        return totals_s2 + _logits_and_totals(hidden_nscd[n], labels_nsc[n], weights_nsc[n], kernel_dv)[2]

    zeros = jnp.zeros((hidden_nscd.shape[1], 2))
    loss_s, hits_s = lax.fori_loop(0, _blocks_that_count(weights_nsc), add_block, zeros).T
    return loss_s.sum(), hits_s.sum()


def _forward(
    hidden_nscd: Array, labels_nsc: Array, weights_nsc: Array, kernel_dv: Array, dtype: DTypeLike
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    (d, v), shards = kernel_dv.shape, hidden_nscd.shape[1]
    kernel_vd, kernel_dv = kernel_dv[:-1].T.astype(dtype), kernel_dv.astype(dtype)
    # Transposed here, not in the loop: what a loop reads is written out, and so multiplied fast on CPUs in bfloat16.
    hidden_nscd = hidden_nscd.astype(dtype)
    hidden_nsdc = hidden_nscd.swapaxes(2, 3)

    def add_block(n: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        totals_s2, grad_hidden_nscd, grad_kernel_sdv = sums
        labels_sc, weights_sc = labels_nsc[n], weights_nsc[n]
        logits_scv, lse_sc1, block_totals_s2 = _logits_and_totals(hidden_nscd[n], labels_sc, weights_sc, kernel_dv)
        is_label_scv = jnp.arange(v)[None, None] == labels_sc[..., None]
        grad_scv = (jnp.exp(logits_scv - lse_sc1) - is_label_scv) * weights_sc[..., None]
        grad_scv = grad_scv.astype(dtype)
        return (
            totals_s2 + block_totals_s2,
            grad_hidden_nscd.at[n].set(_matmul("scv,vd->scd", grad_scv, kernel_vd)),
            grad_kernel_sdv + _matmul("sdc,scv->sdv", hidden_nsdc[n], grad_scv),
        )

    # Nothing is summed over shards within the loop, where devices would have to wait for each other.
    zeros = (jnp.zeros((shards, 2)), jnp.zeros((*hidden_nscd.shape[:3], d - 1)), jnp.zeros((shards, d, v)))
    sums = lax.fori_loop(0, _blocks_that_count(weights_nsc), add_block, zeros)
    totals_s2, grad_hidden_nscd, grad_kernel_sdv = sums
    loss_s, hits_s = totals_s2.T
    return (loss_s.sum(), hits_s.sum()), (grad_hidden_nscd, grad_kernel_sdv.sum(0))


def _backward(dtype: DTypeLike, grads: tuple[Array, Array], cotangents: tuple[Array, Array]) -> tuple:
    grad_hidden_nscd, grad_kernel_dv = (grad * cotangents[0] for grad in grads)
    constant = jnp.zeros((*grad_hidden_nscd.shape[:3], 1))
    return jnp.concatenate([grad_hidden_nscd, constant], axis=-1), None, None, grad_kernel_dv


_totals.defvjp(_forward, _backward)


def _blocks_that_count(weights_nsc: Array) -> Array:
    return (weights_nsc.max((1, 2)) > 0).sum()


def _logits_and_totals(
    hidden_scd: Array, labels_sc: Array, weights_sc: Array, kernel_dv: Array
) -> tuple[Array, Array, Array]:
    """Logits [s, c, v], their log-sum-exp [s, c, 1], and each shard's totals of loss and hits [s, 2]."""
    logits_scv = _matmul("scd,dv->scv", hidden_scd, kernel_dv)
    of_label_sc1 = jnp.take_along_axis(logits_scv, labels_sc[..., None], axis=-1)
    highest_sc1 = logits_scv.max(axis=-1, keepdims=True)
    lse_sc1 = highest_sc1 + jnp.log(jnp.exp(logits_scv - highest_sc1).sum(axis=-1, keepdims=True))
    # Not argmax: over a vocabulary of 20,256, XLA took 24 times as long for it as for the maximum on a CPU.
    each_sc2 = jnp.concatenate([lse_sc1 - of_label_sc1, of_label_sc1 >= highest_sc1], axis=-1)
    return logits_scv, lse_sc1, (each_sc2 * weights_sc[..., None]).sum(1)


def _matmul(letters: str, a: Array, b: Array) -> Array:
    return jnp.einsum(letters, a, b, preferred_element_type=jnp.float32)
