"""Classification: one label of each sequence (Devlin et al. 2019, section 4.1)."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.data.batching.labelled import LabelledBatch
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import init_params
from bertjax.objectives.metrics import Mean, Metrics, correct, cross_entropy, weighted_mean
from bertjax.objectives.objective import Objective, Params
from bertjax.parallel.sharding import gathered_outside_layers

HEADS = {"label": "label"}


def classification_objective(
    model: SequenceClassifier, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
) -> Objective:
    """The label of each sequence, as an objective.

    Args:
      model: with the mesh that the batches are to be spread over, if there is one.
      label_smoothing: share of each label's probability that is spread over all of them, in training alone.
      class_weights: what an example of each label counts for, in training alone; by default 1.
    """
    weights = None if class_weights is None else tuple(class_weights)
    init = functools.partial(init_params, model.clone(bert=model.bert.clone(mesh=None)))
    return Objective(
        heads=HEADS,
        loss_weights={"label_loss": 1.0},
        init=init,
        metrics=functools.partial(batch_metrics, model, label_smoothing=label_smoothing, class_weights=weights),
        loss_counts=lambda batch: {"label_loss": _weights_bk(batch, weights).sum()},
    )


def batch_metrics(
    model: SequenceClassifier,
    params: Params,
    batch: LabelledBatch,
    dropout_key: Array | None = None,
    *,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
) -> Metrics:
    """Computes loss and accuracy of a batch.

    Args:
      dropout_key: the model learns where there is one: with dropout, smoothing and weights. Else the loss is plain.
    """
    logits_bkc = apply(model, params, batch, dropout_key)
    labels_bk, present_bk = jnp.asarray(batch.labels_bk), jnp.asarray(batch.weights_bk)
    losses_bk = cross_entropy(logits_bkc, labels_bk)
    accuracy = weighted_mean(correct(logits_bkc, labels_bk), present_bk)
    if dropout_key is None:
        return {"label_loss": weighted_mean(losses_bk, present_bk), "label_accuracy": accuracy}
    weights_bk = _weights_bk(batch, class_weights)
    loss = Mean((losses_bk * weights_bk).sum(), weights_bk.sum())
    if label_smoothing:
        # Of each label the same share; a label's own loss weighs as that label does, as in PyTorch.
        each_bkc = -jax.nn.log_softmax(logits_bkc) * (present_bk[..., None] * _of_class(class_weights, logits_bkc))
        even = each_bkc.sum() / logits_bkc.shape[-1]
        loss = Mean((1 - label_smoothing) * loss.total + label_smoothing * even, loss.weight)
    return {"label_loss": loss, "label_accuracy": accuracy}


def apply(model: SequenceClassifier, params: Params, batch: LabelledBatch, dropout_key: Array | None = None) -> Array:
    """Returns logits of the labels of each sequence, float32 [b, k, c].

    Args:
      dropout_key: dropout is on where there is one.
    """
    logits_bkc: Array = model.apply(
        {"params": gathered_outside_layers(params, model.bert.mesh)},
        *(batch.tokens_bt, batch.segments_bt, batch.positions_bt, batch.sequences_bt, batch.cls_positions_bk),
        train=dropout_key is not None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )
    return logits_bkc


def confusion(model: SequenceClassifier, params: Params, batch: LabelledBatch) -> Array:
    """Counts the batch's sequences by label and by the likeliest one, int32 [c labels, c guesses]."""
    logits_bkc = apply(model, params, batch)
    count = model.num_labels
    cells_bk = batch.labels_bk * count + logits_bkc.argmax(-1)
    present_bk = jnp.asarray(batch.weights_bk > 0, jnp.int32)
    return jnp.zeros(count * count, jnp.int32).at[cells_bk.ravel()].add(present_bk.ravel()).reshape(count, count)


def _weights_bk(batch: LabelledBatch, class_weights: tuple[float, ...] | None) -> Array:
    weights_bk = jnp.asarray(batch.weights_bk)
    return weights_bk if class_weights is None else weights_bk * jnp.asarray(class_weights)[batch.labels_bk]


def _of_class(class_weights: tuple[float, ...] | None, logits_bkc: Array) -> Array:
    weights = (1.0,) * logits_bkc.shape[-1] if class_weights is None else class_weights
    return jnp.asarray(weights, jnp.float32)[None, None]
