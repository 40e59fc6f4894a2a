"""Tagging: the label of each token that has one (Devlin et al. 2019, section 5.3)."""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from bertjax.data.batching.answers import AnswerBatch
from bertjax.data.batching.tagged import TaggedBatch
from bertjax.models.parameters import fresh_params
from bertjax.models.tagger import TokenClassifier
from bertjax.objectives.labels import label_metrics, label_weights
from bertjax.objectives.metrics import Metrics
from bertjax.objectives.objective import Objective, Params
from bertjax.parallel.sharding import gathered_outside_layers

HEADS = {"tag": "tag"}


def tagging_objective(
    model: TokenClassifier, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
) -> Objective:
    """The label of each token that has one, as an objective: the loss is the mean over all of these in a batch.

    Args:
      model: with the mesh that the batches are to be spread over, if there is one.
      label_smoothing: share of each label's probability that is spread over all of them, in training alone.
      class_weights: what a token of each label counts for, in training alone; by default 1.
    """
    weights = None if class_weights is None else tuple(class_weights)
    return Objective(
        heads=HEADS,
        loss_weights={"tag_loss": 1.0},
        init=fresh_params(model),
        metrics=functools.partial(batch_metrics, model, label_smoothing=label_smoothing, class_weights=weights),
        loss_counts=lambda batch: {
            "tag_loss": label_weights(jnp.asarray(batch.labels_bt), jnp.asarray(batch.weights_bt), weights).sum()
        },
    )


def batch_metrics(
    model: TokenClassifier,
    params: Params,
    batch: TaggedBatch,
    dropout_key: Array | None = None,
    *,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
) -> Metrics:
    """Computes loss and accuracy of a batch.

    Args:
      dropout_key: the model learns where there is one: with dropout, smoothing and weights. Else the loss is plain.
    """
    return label_metrics(
        "tag",
        token_logits(model, params, batch, dropout_key),
        jnp.asarray(batch.labels_bt),
        jnp.asarray(batch.weights_bt),
        learning=dropout_key is not None,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
    )


def token_logits(
    model: TokenClassifier, params: Params, batch: TaggedBatch | AnswerBatch, dropout_key: Array | None = None
) -> Array:
    """Returns logits of the labels of each token, float32 [b, t, c].

    Args:
      dropout_key: dropout is on where there is one.
    """
    logits_btc: Array = model.apply(
        {"params": gathered_outside_layers(params, model.bert.mesh)},
        *(batch.tokens_bt, batch.segments_bt, batch.positions_bt, batch.sequences_bt),
        train=dropout_key is not None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )
    return logits_btc
