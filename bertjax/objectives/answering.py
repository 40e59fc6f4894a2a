"""Answering: where in a sequence the answer to its question begins and ends (Devlin et al. 2019, section 4.2).

Letters: b rows, t tokens of a row, k sequences of a row.
"""

import functools

import jax.numpy as jnp
from jax import Array

from bertjax.data.batching.answers import AnswerBatch
from bertjax.models.parameters import fresh_params
from bertjax.models.tagger import TokenClassifier
from bertjax.objectives.metrics import Metrics, correct, cross_entropy, weighted_mean
from bertjax.objectives.objective import Objective, Params
from bertjax.objectives.tagging import token_logits

HEADS = {"answer": "answer"}
_ELSEWHERE = -1e30  # the logit of a token of another sequence, which exp makes 0; minus infinity has no gradient


def answering_objective(model: TokenClassifier) -> Objective:
    """The first and the last token of each sequence's answer, as an objective.

    The loss is the mean of the two cross-entropies, each over the tokens of the sequence alone, in the mean over all
    sequences of a batch. That of a sequence without an answer has both at its first token.

    Args:
      model: tells two numbers of a token; with the mesh that the batches are to be spread over, if there is one.
    """
    return Objective(
        heads=HEADS,
        loss_weights={"answer_loss": 1.0},
        init=fresh_params(model),
        metrics=functools.partial(batch_metrics, model),
        loss_counts=lambda batch: {"answer_loss": jnp.asarray(batch.weights_bk).sum()},
    )


def batch_metrics(
    model: TokenClassifier, params: Params, batch: AnswerBatch, dropout_key: Array | None = None
) -> Metrics:
    """Computes the loss of a batch, and the share of sequences of which both places are the likeliest.

    Args:
      dropout_key: dropout is on where there is one.
    """
    logits_bt2 = token_logits(model, params, batch, dropout_key)
    weights_bk, sequences_bt = jnp.asarray(batch.weights_bk), jnp.asarray(batch.sequences_bt)
    own_bkt = sequences_bt[:, None] == 1 + jnp.arange(weights_bk.shape[1])[None, :, None]
    losses_bk, right_bk = jnp.zeros(weights_bk.shape), jnp.ones(weights_bk.shape)
    for number, places_bk in enumerate((batch.starts_bk, batch.ends_bk)):
        logits_bkt = jnp.where(own_bkt, logits_bt2[:, None, :, number], _ELSEWHERE)
        losses_bk += cross_entropy(logits_bkt, jnp.asarray(places_bk)) / 2
        right_bk *= correct(logits_bkt, jnp.asarray(places_bk))
    return {
        "answer_loss": weighted_mean(losses_bk, weights_bk),
        "answer_accuracy": weighted_mean(right_bk, weights_bk),
    }
