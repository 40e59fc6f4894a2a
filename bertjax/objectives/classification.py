"""Classification: one label of each sequence (Devlin et al. 2019, section 4.1), or several."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.data.batching.labelled import LabelledBatch
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import fresh_params
from bertjax.objectives.labels import label_metrics, label_weights
from bertjax.objectives.metrics import Metrics, weighted_mean
from bertjax.objectives.objective import Objective, Params
from bertjax.objectives.sequence_logits import sequence_logits

HEADS = {"label": "label"}


def classification_objective(
    model: SequenceClassifier,
    *,
    several: bool = False,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Objective:
    """The label of each sequence, or its several ones, as an objective.

    Args:
      model: with the mesh that the batches are to be spread over, if there is one.
      several: an example may have several labels, or none; each is told by itself.
      label_smoothing: share of each label's probability that is spread over all of them (of several: over having it and
        not), in training alone.
      class_weights: what an example of each label counts for, in training alone; of several what having each label
        counts for, where not having it counts 1. By default 1.
    """
    weights = None if class_weights is None else tuple(class_weights)
    metrics = several_metrics if several else batch_metrics
    of_loss = None if several else weights
    return Objective(
        heads=HEADS,
        loss_weights={"label_loss": 1.0},
        init=fresh_params(model),
        metrics=functools.partial(metrics, model, label_smoothing=label_smoothing, class_weights=weights),
        loss_counts=lambda batch: {
            "label_loss": label_weights(jnp.asarray(batch.labels_bk), jnp.asarray(batch.weights_bk), of_loss).sum()
        },
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
    """Computes loss and accuracy of a batch where each sequence has one label.

    Args:
      dropout_key: the model learns where there is one: with dropout, smoothing and weights. Else the loss is plain.
    """
    return label_metrics(
        "label",
        sequence_logits(model, params, batch, dropout_key),
        jnp.asarray(batch.labels_bk),
        jnp.asarray(batch.weights_bk),
        learning=dropout_key is not None,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
    )


def several_metrics(
    model: SequenceClassifier,
    params: Params,
    batch: LabelledBatch,
    dropout_key: Array | None = None,
    *,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
) -> Metrics:
    """Computes loss and accuracy of a batch where each sequence has several labels, or none.

    The loss of a sequence is the mean over the labels, as `torch.nn.BCEWithLogitsLoss(pos_weight=...)` has it. The
    accuracy is the share of labels that are told rightly, there or not.

    Args:
      dropout_key: as of `batch_metrics`.
    """
    logits_bkc = sequence_logits(model, params, batch, dropout_key)
    has_bkc, present_bk = jnp.asarray(batch.labels_bk), jnp.asarray(batch.weights_bk)
    learning = dropout_key is not None
    wanted_bkc = has_bkc * (1 - label_smoothing) + label_smoothing / 2 if learning else has_bkc
    having_bkc = (
        wanted_bkc * -jax.nn.log_sigmoid(logits_bkc) * _of_class(class_weights if learning else None, logits_bkc)
    )
    losses_bk = (having_bkc + (1 - wanted_bkc) * -jax.nn.log_sigmoid(-logits_bkc)).mean(-1)
    right_bk = ((logits_bkc > 0) == (has_bkc > 0)).astype(jnp.float32).mean(-1)
    return {
        "label_loss": weighted_mean(losses_bk, present_bk),
        "label_accuracy": weighted_mean(right_bk, present_bk),
    }


def _of_class(class_weights: tuple[float, ...] | None, logits_bkc: Array) -> Array:
    weights = (1.0,) * logits_bkc.shape[-1] if class_weights is None else class_weights
    return jnp.asarray(weights, jnp.float32)[None, None]
