"""Embeddings: texts that belong together get vectors near each other, others' lie apart (Reimers and Gurevych 2019).

A batch has n examples of r texts: an anchor, its positive, and perhaps hard negatives. Vectors are compared by their
cosine. The losses are those that sentence-transformers calls MultipleNegativesRankingLoss, also symmetric, CoSENTLoss
and MatryoshkaLoss.

The in-batch losses are no sums over examples: each has all the others for its negatives. So the texts' vectors are made
in parts, one after the other, which keep nothing; loss and gradients of all vectors follow; and each part is made again
to pass its vectors' gradients on (GradCache, Gao et al. 2021, arXiv:2101.06983). That is what `jax.checkpoint` does of
a part: memory is that of a part, the loss that of the whole batch.

Letters: b rows, k sequences of a row, n examples, q of them at a row, r texts of an example, m candidates, e numbers
of a vector.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.data.batching.tuples import TupleBatch
from bertjax.models.parameters import fresh_params
from bertjax.models.sentence_encoder import SentenceEncoder
from bertjax.objectives.metrics import Mean, Metrics
from bertjax.objectives.objective import Objective, Params
from bertjax.parallel.sharding import gathered_outside_layers, on_rows, row_shards

HEAD = "contrastive"
HEADS = {HEAD: HEAD}

_LOWEST = jnp.finfo(jnp.float32).min  # in place of -inf, of which gradients are no numbers
_TINY = 1e-12  # length that a vector has at least when it is divided by it, as in PyTorch


class Contrast(NamedTuple):
    """What the vectors of a batch are to be like."""

    scored: bool = False
    """Pairs have scores, and their cosines are to be in the scores' order; else an example's positive is to be nearer
    to its anchor than all other positives and all hard negatives of the batch are."""
    temperature: float = 0.05
    """What cosines are divided by; the lower, the more the hardest negatives count."""
    symmetric: bool = False
    """The anchor is to be nearer to its positive than all other anchors too; the loss is the mean of both ways."""
    sizes: tuple[int, ...] = ()
    """How many of a vector's first numbers are to do alone (Kusupati et al. 2022, arXiv:2205.13147): the loss is the
    sum over these sizes. By default all numbers."""


def contrastive_objective(model: SentenceEncoder, contrast: Contrast, *, parts: int = 1) -> Objective:
    """The vectors of texts, as an objective.

    Args:
      model: with the mesh that the batches are to be spread over, if there is one.
      parts: in which the vectors of a batch are made, to save memory: loss and gradients stay the same.
    """
    name = f"{HEAD}_loss"
    init = fresh_params(model)
    counted = _count_batches if contrast.scored else _count_examples
    return Objective(
        heads=HEADS,
        loss_weights={name: 1.0},
        init=init,
        metrics=functools.partial(batch_metrics, model, contrast, parts),
        loss_counts=lambda batch: {name: counted(batch)},
        cut_by_step=False,
    )


def batch_metrics(
    model: SentenceEncoder,
    contrast: Contrast,
    parts: int,
    params: Params,
    batch: TupleBatch,
    dropout_key: Array | None = None,
) -> Metrics:
    """Computes the loss of a batch, and the share of anchors whose positive is the nearest, or of scores in order.

    Args:
      dropout_key: dropout is on where there is one.
    """
    vectors_nre = tuple_vectors(model, params, batch, dropout_key, parts=parts)
    losses = [metrics_of_vectors(vectors_nre[..., :size], batch, contrast) for size in contrast.sizes or (None,)]
    total = sum((metrics[f"{HEAD}_loss"].total for metrics in losses[1:]), start=losses[0][f"{HEAD}_loss"].total)
    return losses[0] | {f"{HEAD}_loss": Mean(total, losses[0][f"{HEAD}_loss"].weight)}


def tuple_vectors(
    model: SentenceEncoder, params: Params, batch: TupleBatch, dropout_key: Array | None = None, *, parts: int = 1
) -> Array:
    """Returns the vector of each text of the examples, float32 [n, r, e]; zeros where there is none.

    Args:
      dropout_key: dropout is on where there is one; each part has one of its own.
      parts: so many rows of the batch are computed one after the other, for gradients twice.
    """
    (b, k), mesh = batch.texts_bk.shape, model.bert.mesh

    def encode(rows: tuple[Array, ...], key: Array | None) -> Array:
        return model.apply(  # type: ignore[no-any-return]
            {"params": gathered_outside_layers(params, mesh)},
            *rows,
            num_sequences=k,
            train=key is not None,
            rngs=None if key is None else {"dropout": key},
        )

    rows: Any = tuple(jnp.asarray(field) for field in batch[:4])
    if parts == 1:
        vectors_bke = encode(rows, dropout_key)
    else:
        missing = -b % (parts * (1 if mesh is None else row_shards(mesh)))
        # A part has every so-many-th row, so that its rows lie on all devices as the batch's do.
        rows = jax.tree.map(
            lambda x: jnp.pad(x, [(0, missing), (0, 0)]).reshape(-1, parts, x.shape[1]).swapaxes(0, 1), rows
        )
        keys = None if dropout_key is None else jax.random.split(dropout_key, parts)
        vectors_pake = jax.lax.map(lambda part: jax.checkpoint(encode, prevent_cse=False)(*part), (rows, keys))
        vectors_bke = vectors_pake.swapaxes(0, 1).reshape(-1, k, vectors_pake.shape[-1])[:b]
    n, r = batch.weights_bq.size, batch.kinds_bqr.shape[-1]
    texts = jnp.asarray(batch.texts_bk).ravel()
    places = jnp.where(texts > 0, texts - 1, n * r + jnp.arange(b * k))  # where there is no text, beyond the last
    zeros = jnp.zeros((n * r, vectors_bke.shape[-1]))
    vectors = zeros.at[places].set(vectors_bke.reshape(b * k, -1), mode="drop", unique_indices=True)
    return on_rows(vectors.reshape(n, r, -1), mesh)


def metrics_of_vectors(vectors_nre: Array, batch: TupleBatch, contrast: Contrast) -> Metrics:
    """Computes loss and accuracy from the vectors of a batch's texts.

    Args:
      vectors_nre: of any length; zeros where there is no text.
    """
    weights_n = jnp.asarray(batch.weights_bq).ravel()
    if contrast.scored:
        loss, right = order_loss(vectors_nre, jnp.asarray(batch.scores_bq).ravel(), weights_n, contrast)
        return {f"{HEAD}_loss": loss, f"{HEAD}_accuracy": right}
    kinds_nr = jnp.asarray(batch.kinds_bqr).reshape(len(weights_n), -1)
    losses_n, right_n = nearest_losses(vectors_nre, kinds_nr, contrast)
    metrics = {f"{HEAD}_loss": losses_n, f"{HEAD}_accuracy": right_n}
    return {name: Mean((values_n * weights_n).sum(), weights_n.sum()) for name, values_n in metrics.items()}


def nearest_losses(vectors_nre: Array, kinds_nr: Array, contrast: Contrast) -> tuple[Array, Array]:
    """Returns the loss of each example by in-batch negatives, and 1 where no candidate is as near as the positive.

    The loss is the cross-entropy of softmax(cosines / temperature) over the candidates of the anchor, of which one is
    its positive: all positives and hard negatives of the batch (Henderson et al. 2017, arXiv:1705.00652, section 4.4).
    A candidate is left out where it is known to be no negative: it reads as the positive or the anchor itself, or
    is the positive of an anchor that reads the same. Without equal texts in a batch nothing is left out.

    Args:
      vectors_nre: of the texts, zeros where there is none.
      kinds_nr: int32, one number for texts that read the same, from 1 on; 0 where there is none.
    """
    n, r = kinds_nr.shape
    unit_nre = unit(vectors_nre)
    anchors_ne = unit_nre[:, 0]
    # All positives, then all first negatives, and so on.
    candidates_me = unit_nre[:, 1:].swapaxes(0, 1).reshape(n * (r - 1), -1)
    kinds_m = kinds_nr[:, 1:].T.ravel()
    cosines_nm = jnp.einsum("ne,me->nm", anchors_ne, candidates_me, precision="highest")
    anchor_n1, positive_n1 = kinds_nr[:, :1], kinds_nr[:, 1:2]
    alike_nm = (kinds_m[None] == positive_n1) | (kinds_m[None] == anchor_n1)
    of_same_nn = anchor_n1 == anchor_n1.T
    alike_nm |= jnp.concatenate([of_same_nn, jnp.zeros((n, n * (r - 2)), bool)], axis=1)
    losses_n, right_n = _softmax_losses(cosines_nm, (kinds_m > 0)[None] & ~alike_nm, contrast)
    if contrast.symmetric:
        alike_nn = of_same_nn | (positive_n1 == positive_n1.T) | (anchor_n1.T == positive_n1)
        back_n, _ = _softmax_losses(cosines_nm[:, :n].T, (anchor_n1 > 0).T & ~alike_nn, contrast)
        losses_n = (losses_n + back_n) / 2
    return losses_n, right_n


def _softmax_losses(cosines_nm: Array, negative_nm: Array, contrast: Contrast) -> tuple[Array, Array]:
    """The losses by candidates of which the n-th is the n-th's own, and whether no negative is as near as that."""
    n = len(cosines_nm)
    own_nm = jnp.arange(cosines_nm.shape[1])[None] == jnp.arange(n)[:, None]
    logits_nm = jnp.where(negative_nm | own_nm, cosines_nm / contrast.temperature, _LOWEST)
    own_n = jnp.diagonal(logits_nm[:, :n])
    nearest_n = jnp.where(own_nm, _LOWEST, logits_nm).max(-1)
    return jax.nn.logsumexp(logits_nm, axis=-1) - own_n, (own_n > nearest_n).astype(jnp.float32)


def order_loss(vectors_nre: Array, scores_n: Array, weights_n: Array, contrast: Contrast) -> tuple[Mean, Mean]:
    """Returns CoSENT's loss of scored pairs (Su 2022, https://kexue.fm/archives/8847), and how often of two the right
    one has the greater cosine.

    It is log(1 + the sum of exp((c_i - c_j) / temperature)) over all i and j of which j has the higher score, c being
    the cosine of a pair. A batch is one value.

    Args:
      vectors_nre: of the texts, two an example.
      scores_n: the higher, the more alike.
      weights_n: 1, or 0 where there is no example.
    """
    unit_nre = unit(vectors_nre)
    cosines_n = (unit_nre[:, 0] * unit_nre[:, 1]).sum(-1) / contrast.temperature
    there_n = weights_n > 0
    counts_nn = (scores_n[:, None] < scores_n[None]) & there_n[:, None] & there_n[None]
    differences_nn = jnp.where(counts_nn, cosines_n[:, None] - cosines_n[None], _LOWEST)
    loss = jax.nn.logsumexp(jnp.append(differences_nn.ravel(), 0.0))
    right_nn = counts_nn & (cosines_n[:, None] < cosines_n[None])
    return Mean(loss, jnp.ones(())), Mean(right_nn.sum().astype(jnp.float32), counts_nn.sum().astype(jnp.float32))


def unit(x: Array) -> Array:
    """Returns vectors scaled to length 1; zeros stay, and so does their gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), _TINY**2))


def _count_examples(batch: TupleBatch) -> Array:
    return jnp.asarray(batch.weights_bq).sum()


def _count_batches(batch: TupleBatch) -> Array:
    return jnp.ones(())
