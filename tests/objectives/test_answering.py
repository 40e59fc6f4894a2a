"""Answering: the loss as PyTorch defines it of each sequence by itself, which no neighbour in its row can change."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from asked_questions import answer_examples
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.data.batching.answers import AnswerBatch, AnswerBatches
from bertjax.models.bert import Bert
from bertjax.models.tagger import TokenClassifier
from bertjax.objectives.answering import answering_objective
from bertjax.objectives.tagging import token_logits

MODEL = TokenClassifier(Bert(BertConfig(60, 16, 1, 2, 32, 16, dropout=0.0, init_scale=0.5)), 2)
OBJECTIVE = answering_objective(MODEL)
LOGITS, METRICS = jax.jit(functools.partial(token_logits, MODEL)), jax.jit(OBJECTIVE.metrics)
LENGTHS = [9, 3, 5, 12, 2, 7, 4, 4]
EXAMPLES = answer_examples(LENGTHS)


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return drawn_params(MODEL, seed=1)


@pytest.fixture(scope="module")
def packed() -> AnswerBatch:
    return AnswerBatches(EXAMPLES, batch_size=8, row_length=24, seed=0).batch_at(0)


def test_the_loss_of_packed_rows_is_pytorchs_of_single_sequences(params: dict[str, Any], packed: AnswerBatch) -> None:
    """The mean of `torch.nn.CrossEntropyLoss` of starts and of ends, each over the tokens of one sequence."""
    single = AnswerBatches(EXAMPLES, batch_size=1, seed=0)
    alone = AnswerBatch(*map(np.concatenate, zip(*(single.batch_at(n) for n in range(8)), strict=True)))
    assert len(packed.tokens_bt) == 3 and len(alone.tokens_bt) == 8
    losses, right = [], 0
    places_n2 = np.concatenate((alone.starts_bk, alone.ends_bk), 1)
    for logits_t2, own_t, places in zip(LOGITS(params, alone), alone.sequences_bt > 0, places_n2, strict=True):
        own_t2 = np.asarray(logits_t2, np.float64)[own_t]
        losses.append((np.log(np.exp(own_t2).sum(0)) - own_t2[places, [0, 1]]).mean())
        right += (own_t2.argmax(0) == places).all()
    metrics = METRICS(params, packed, None)
    loss, accuracy = metrics["answer_loss"], metrics["answer_accuracy"]
    assert (float(loss.total), float(loss.weight)) == pytest.approx((sum(losses), 8), rel=1e-5)
    assert (float(accuracy.total), float(accuracy.weight)) == (right, 8)
    assert float(OBJECTIVE.loss_counts(packed)["answer_loss"]) == 8
    parts = [METRICS(params, AnswerBatch(*(x[n : n + 1] for x in packed)), None)["answer_loss"] for n in range(3)]
    assert sum(float(part.total) for part in parts) == pytest.approx(sum(losses), rel=1e-5)


def test_neither_a_neighbour_nor_padding_has_a_part_in_a_sequences_loss(
    params: dict[str, Any], packed: AnswerBatch
) -> None:
    first = packed._replace(weights_bk=packed.weights_bk * (np.arange(packed.weights_bk.shape[1]) == 0))
    changed = np.where(packed.sequences_bt == 1, packed.tokens_bt, 7)
    before, after = (METRICS(params, first._replace(tokens_bt=t), None) for t in (packed.tokens_bt, changed))
    assert before == after and float(before["answer_loss"].weight) == 3
    whole = METRICS(params, packed._replace(tokens_bt=changed), None)["answer_loss"]
    assert abs(float(whole.total) - float(METRICS(params, packed, None)["answer_loss"].total)) > 0.01


def test_gradients_are_numbers_where_a_row_has_fewer_sequences_than_another(
    params: dict[str, Any], packed: AnswerBatch
) -> None:
    assert (packed.weights_bk == 0).any()
    found = jax.jit(jax.grad(lambda params: OBJECTIVE.metrics(params, packed, None)["answer_loss"].total))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert max(float(abs(leaf).max()) for leaf in jax.tree.leaves(found)) > 0.1
