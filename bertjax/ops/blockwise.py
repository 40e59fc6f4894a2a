"""Cross-entropy over a large vocabulary, block by block, without ever holding all the logits.

The logits of a batch, predictions times vocabulary, are most of a small BERT's memory and time. Here a block of them is
made, turned into its losses and its share of the gradients, and forgotten. The gradients are made on the way forward,
while the logits are at hand: the same three matrix products as without blocks, none of them twice.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike

from bertjax.parallel.sharding import ROW_AXES

# Logits held at once, on each device. On a CPU a block is to stay in the cache and below the 32 MiB from which
# malloc takes fresh pages from the system each time.
_BLOCK_ON_CPU = 2**22
_BLOCK = 2**28

_WORDS = "tensor"  # the mesh's axis that splits the vocabulary


def logits_at_once() -> int:
    """Returns how many logits a device holds at once."""
    return _BLOCK_ON_CPU if jax.default_backend() == "cpu" else _BLOCK


def blockwise_cross_entropy(
    hidden_md: Array,
    kernel_dv: Array,
    bias_v: Array,
    labels_m: Array,
    weights_m: Array,
    *,
    dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    block_rows: int | None = None,
    z_loss: float = 0.0,
) -> tuple[Array, Array]:
    """Returns the cross-entropy of softmax(hidden @ kernel + bias), and how often no token is likelier than the label.

    Args:
      hidden_md: hidden states of the tokens to predict.
      kernel_dv: the vocabulary's matrix.
      bias_v: the vocabulary's biases.
      labels_m: int32, below v.
      weights_m: float32, 1 or 0; predictions of weight 0 are left out of the work too.
      dtype: what products are rounded to; sums, softmax and losses are float32.
      mesh: devices that share the work, as `sharding.make_mesh` has them. Each takes its rows' predictions, which must
        be equally many, and its part of the vocabulary where `tensor` divides that. Gradients are added up once, after
        the last block.
      block_rows: predictions a block, on each device; by default as many as 2**22 logits on a CPU and 2**28 elsewhere.
      z_loss: the gradients are those of the loss with this times the squared log of softmax's denominator added to it,
        which holds logits near 0 (Chowdhery et al. 2022, section 5); the loss that is told is without.

    Returns:
      the totals of both over predictions of weight 1, the first in nats. It has gradients, but not for the weights.
    """
    if mesh is None or mesh.size == 1:
        return _on_a_device(hidden_md, kernel_dv, bias_v, labels_m, weights_m, dtype, z_loss, block_rows)
    parts = mesh.shape[_WORDS]
    words = (_WORDS,) if parts > 1 and len(bias_v) % parts == 0 else ()

    def on_each(
        hidden_md: Array, kernel_dv: Array, bias_v: Array, labels_m: Array, weights_m: Array
    ) -> tuple[Array, Array]:
        # Whole on several devices, but not so their gradients, which JAX adds up for it.
        hidden_md = lax.pcast(hidden_md, words, to="varying") if words else hidden_md
        kernel_dv, bias_v = lax.pcast((kernel_dv, bias_v), ROW_AXES, to="varying")
        axes = (*ROW_AXES, *words)
        totals = _on_a_device(hidden_md, kernel_dv, bias_v, labels_m, weights_m, dtype, z_loss, block_rows, axes)
        loss, correct = lax.psum(totals, ROW_AXES)
        return loss, correct

    by_rows, by_words, by_columns = PartitionSpec(ROW_AXES), PartitionSpec(words), PartitionSpec(None, words)
    in_specs = (by_rows, by_columns, by_words, by_rows, by_rows)
    whole = (PartitionSpec(), PartitionSpec())
    return jax.shard_map(on_each, mesh=mesh, in_specs=in_specs, out_specs=whole)(
        hidden_md, kernel_dv, bias_v, labels_m, weights_m
    )


def _on_a_device(
    hidden_md: Array,
    kernel_dv: Array,
    bias_v: Array,
    labels_m: Array,
    weights_m: Array,
    dtype: DTypeLike,
    z_loss: float,
    block_rows: int | None,
    split: tuple[str, ...] = (),
) -> tuple[Array, Array]:
    """Returns the totals of one device's predictions.

    Args:
      split: axes of the mesh over which the work is split; `_WORDS` is among them where the vocabulary is.
    """
    if block_rows is None:
        block_rows = max(1, logits_at_once() // len(bias_v))
    m = len(labels_m)
    blocks = -(-m // block_rows)
    c = -(-m // blocks)
    # Those that count come first, so that the last blocks, which have none, need not be made.
    order_m = jnp.argsort(weights_m == 0, stable=True)

    def in_blocks(x_m: Array) -> Array:
        """[m, ...] -> [blocks, c, ...], filled up with zeros."""
        x_m = jnp.pad(jnp.asarray(x_m)[order_m], [(0, blocks * c - m)] + [(0, 0)] * (x_m.ndim - 1))
        return x_m.reshape(blocks, c, *x_m.shape[1:])

    if _WORDS in split:  # a label is a place among this device's words from here on, or outside
        labels_m = labels_m - lax.axis_index(_WORDS) * len(bias_v)
    # The bias is one more row of the kernel, that of a feature which is 1: its gradient comes with the kernel's.
    hidden_md = jnp.pad(hidden_md.astype(jnp.float32), [(0, 0), (0, 1)], constant_values=1)
    kernel_dv = jnp.concatenate([kernel_dv, bias_v[None]])
    return _totals(*map(in_blocks, (hidden_md, labels_m, weights_m)), kernel_dv, dtype, z_loss, split)


# Letters from here on: n blocks, c predictions of a block; d counts the bias's feature.


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _totals(
    hidden_ncd: Array,
    labels_nc: Array,
    weights_nc: Array,
    kernel_dv: Array,
    dtype: DTypeLike,
    z_loss: float,
    split: tuple[str, ...],
) -> tuple[Array, Array]:
    hidden_ncd, kernel_dv = hidden_ncd.astype(dtype), kernel_dv.astype(dtype)

    def add_block(n: Array, totals_2: Array) -> Array:
        return totals_2 + _logits_and_totals(hidden_ncd[n], labels_nc[n], weights_nc[n], kernel_dv, split)[2]

    zeros = _zeros((2,), _rows_of(split))
    loss, correct = lax.fori_loop(0, _blocks_that_count(weights_nc), add_block, zeros)
    return loss, correct


def _forward(
    hidden_ncd: Array,
    labels_nc: Array,
    weights_nc: Array,
    kernel_dv: Array,
    dtype: DTypeLike,
    z_loss: float,
    split: tuple[str, ...],
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    d, v = kernel_dv.shape
    kernel_vd, kernel_dv = kernel_dv[:-1].T.astype(dtype), kernel_dv.astype(dtype)
    # Transposed here, not in the loop: what a loop reads is written out, and so multiplied fast on CPUs in bfloat16.
    hidden_ncd = hidden_ncd.astype(dtype)
    hidden_ndc = hidden_ncd.swapaxes(1, 2)

    def add_block(n: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        totals_2, grad_hidden_ncd, grad_kernel_dv = sums
        labels_c, weights_c = labels_nc[n], weights_nc[n]
        logits_cv, lse_c1, of_block_2 = _logits_and_totals(hidden_ncd[n], labels_c, weights_c, kernel_dv, split)
        is_label_cv = jnp.arange(v)[None] == labels_c[:, None]
        shares_cv = jnp.exp(logits_cv - lse_c1)
        shares_cv = shares_cv * (1 + 2 * z_loss * lse_c1) if z_loss else shares_cv
        grad_cv = ((shares_cv - is_label_cv) * weights_c[:, None]).astype(dtype)
        return (
            totals_2 + of_block_2,
            grad_hidden_ncd.at[n].set(_matmul(grad_cv, kernel_vd)),
            grad_kernel_dv + _matmul(hidden_ndc[n], grad_cv),
        )

    # Gradients are not added up over devices within the loop, where those would have to wait for each other.
    zeros = (
        _zeros((2,), _rows_of(split)),
        _zeros((*hidden_ncd.shape[:2], d - 1), split),
        _zeros((d, v), split),
    )
    (loss, correct), *grads = lax.fori_loop(0, _blocks_that_count(weights_nc), add_block, zeros)
    return (loss, correct), tuple(grads)


def _backward(
    dtype: DTypeLike, z_loss: float, split: tuple[str, ...], grads: tuple[Array, Array], cotangents: tuple[Array, Array]
) -> tuple[Array, None, None, Array]:
    grad_hidden_ncd, grad_kernel_dv = (grad * cotangents[0] for grad in grads)
    constant = jnp.zeros((*grad_hidden_ncd.shape[:2], 1))
    return jnp.concatenate([grad_hidden_ncd, constant], axis=-1), None, None, grad_kernel_dv


_totals.defvjp(_forward, _backward)


def _zeros(shape: tuple[int, ...], split: tuple[str, ...]) -> Array:
    """Returns zeros that a loop turns into something else on each device along these axes, as JAX wants to be told."""
    return lax.pcast(jnp.zeros(shape), split, to="varying") if split else jnp.zeros(shape)


def _rows_of(split: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(axis for axis in split if axis != _WORDS)


def _blocks_that_count(weights_nc: Array) -> Array:
    return (weights_nc.max(1) > 0).sum()


def _logits_and_totals(
    hidden_cd: Array, labels_c: Array, weights_c: Array, kernel_dv: Array, split: tuple[str, ...]
) -> tuple[Array, Array, Array]:
    """Returns logits [c, v], their log-sum-exp [c, 1], and the totals of loss and correct [2].

    Where the vocabulary is split, the logits are of this device's words and the rest is of all words.
    """
    words_split = _WORDS in split
    logits_cv = _matmul(hidden_cd, kernel_dv)
    of_label_c1 = jnp.take_along_axis(logits_cv, labels_c[:, None], axis=-1, mode="clip" if words_split else None)
    highest_c1 = logits_cv.max(axis=-1, keepdims=True)
    if words_split:
        is_here_c1 = ((labels_c >= 0) & (labels_c < logits_cv.shape[1]))[:, None]
        of_label_c1 = jnp.where(is_here_c1, of_label_c1, 0)
        highest_c1 = lax.pmax(highest_c1, _WORDS)
    sum_c1 = jnp.exp(logits_cv - highest_c1).sum(axis=-1, keepdims=True)
    if words_split:
        sum_c1, of_label_c1 = lax.psum((sum_c1, of_label_c1), _WORDS)
    lse_c1 = highest_c1 + jnp.log(sum_c1)
    # Not argmax: over a vocabulary of 20,256, XLA took 24 times as long for it as for the maximum on a CPU.
    each_c2 = jnp.concatenate([lse_c1 - of_label_c1, of_label_c1 >= highest_c1], axis=-1)
    return logits_cv, lse_c1, (each_c2 * weights_c[:, None]).sum(0)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)
