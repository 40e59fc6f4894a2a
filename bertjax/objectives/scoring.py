"""Scoring: one number of each sequence, as GLUE's STS-B wants it, or how well a passage answers a query."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.data.batching.labelled import LabelledBatch
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import fresh_params
from bertjax.objectives.metrics import Metrics, weighted_mean
from bertjax.objectives.objective import Objective, Params
from bertjax.objectives.sequence_logits import sequence_logits

HEADS = {"score": "score"}
Loss = Literal["squared", "binary"]


def scoring_objective(model: SequenceClassifier, loss: Loss) -> Objective:
    """The number of each sequence, as an objective.

    Args:
      model: with one output, and the mesh that the batches are to be spread over, if there is one.
      loss: squared, (logit - number)^2; or binary, the cross-entropy of a number from 0 to 1 and sigmoid(logit), in
        nats, by which cross-encoders learn to rank (Nogueira and Cho 2019, arXiv:1901.04085, section 3).
    """
    return Objective(
        heads=HEADS,
        loss_weights={"score_loss": 1.0},
        init=fresh_params(model),
        metrics=functools.partial(batch_metrics, model, loss),
        loss_counts=lambda batch: {"score_loss": jnp.asarray(batch.weights_bk).sum()},
    )


def batch_metrics(
    model: SequenceClassifier, loss: Loss, params: Params, batch: LabelledBatch, dropout_key: Array | None = None
) -> Metrics:
    """Computes the loss of a batch.

    Args:
      dropout_key: dropout is on where there is one.
    """
    logits_bk = sequence_logits(model, params, batch, dropout_key)[..., 0]
    scores_bk = jnp.asarray(batch.labels_bk)
    if loss == "squared":
        losses_bk = jnp.square(logits_bk - scores_bk)
    else:
        losses_bk = -scores_bk * jax.nn.log_sigmoid(logits_bk) - (1 - scores_bk) * jax.nn.log_sigmoid(-logits_bk)
    return {"score_loss": weighted_mean(losses_bk, jnp.asarray(batch.weights_bk))}
