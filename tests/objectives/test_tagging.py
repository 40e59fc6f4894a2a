"""Tagging: the loss as PyTorch defines it, and logits that no neighbour in a row can change."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from drawn_params import drawn_params
from tagged_sentences import tagged_examples

from bertjax.config import BertConfig
from bertjax.data.batching.tagged import TaggedBatch, TaggedBatches
from bertjax.models.bert import Bert
from bertjax.models.tagger import TokenClassifier
from bertjax.objectives.tagging import tagging_objective, token_logits

MODEL = TokenClassifier(Bert(BertConfig(60, 16, 1, 2, 32, 16, dropout=0.0, init_scale=0.5)), 3)
LOGITS = jax.jit(functools.partial(token_logits, MODEL))  # op by op it takes seconds
LENGTHS = [9, 3, 5, 12, 2, 7, 4, 4]


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return drawn_params(MODEL, seed=1)


@pytest.fixture(scope="module")
def packed() -> TaggedBatch:
    return TaggedBatches(tagged_examples(LENGTHS), batch_size=8, row_length=24, seed=0).batch_at(0)


def test_packed_logits_are_those_of_single_sequences(params: dict[str, Any], packed: TaggedBatch) -> None:
    single = TaggedBatches(tagged_examples(LENGTHS), batch_size=1, seed=0)
    steps = range(single.steps_in_epoch)
    alone = TaggedBatch(*map(np.concatenate, zip(*(single.batch_at(step) for step in steps), strict=True)))
    of_alone = np.concatenate([single.tokens_at(step) for step in steps])
    assert len(packed.tokens_bt) < len(alone.tokens_bt) == len(LENGTHS)
    of_packed = TaggedBatches(tagged_examples(LENGTHS), batch_size=8, row_length=24, seed=0).tokens_at(0)
    found = []
    for batch, tokens_bt in ((packed, of_packed), (alone, of_alone)):
        there = tokens_bt >= 0
        logits_mc = np.asarray(LOGITS(params, batch))[there]
        found.append(logits_mc[np.argsort(tokens_bt[there])])
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5)
    assert np.abs(found[0] - found[0][0]).max() > 0.1


def test_a_neighbour_changes_nothing(params: dict[str, Any], packed: TaggedBatch) -> None:
    first = packed.sequences_bt == 1
    changed = np.where(first | (packed.sequences_bt == 0), packed.tokens_bt, 7)
    before, after = (np.asarray(LOGITS(params, packed._replace(tokens_bt=t))) for t in (packed.tokens_bt, changed))
    np.testing.assert_array_equal(before[first], after[first])
    assert np.abs(before - after).max() > 0.01


def test_the_loss_is_pytorchs_over_labelled_tokens(params: dict[str, Any], packed: TaggedBatch) -> None:
    """As `torch.nn.CrossEntropyLoss(weight, label_smoothing)` says it, and the parts of a batch sum up to the whole."""
    smoothing, weights = 0.2, [0.5, 2.0, 1.0]
    objective = tagging_objective(MODEL, label_smoothing=smoothing, class_weights=weights)
    there = packed.weights_bt > 0
    logits_mc, labels_m = np.asarray(LOGITS(params, packed), np.float64)[there], packed.labels_bt[there]
    w_c = np.array(weights)
    log_mc = logits_mc - np.log(np.exp(logits_mc).sum(-1, keepdims=True))
    wanted_mc = (1 - smoothing) * np.eye(3)[labels_m] + smoothing / 3
    total, weight = -(wanted_mc * w_c * log_mc).sum(), w_c[labels_m].sum()
    key = jax.random.key(0)  # the model has no dropout
    metrics = jax.jit(objective.metrics)
    loss = metrics(params, packed, key)["tag_loss"]
    assert (float(loss.total), float(loss.weight)) == pytest.approx((total, weight), rel=1e-5)
    assert float(objective.loss_counts(packed)["tag_loss"]) == pytest.approx(weight)
    parts = [metrics(params, TaggedBatch(*(x[n : n + 1] for x in packed)), key)["tag_loss"] for n in range(3)]
    assert len(packed.tokens_bt) == 3
    assert (sum(float(part.total) for part in parts), sum(float(part.weight) for part in parts)) == pytest.approx(
        (total, weight), rel=1e-5
    )
    plain = metrics(params, packed, None)  # held out, it is the same whatever was learned by
    assert float(plain["tag_loss"].total) == pytest.approx(-log_mc[range(len(labels_m)), labels_m].sum(), rel=1e-5)
    assert float(plain["tag_accuracy"].total) == (logits_mc.argmax(-1) == labels_m).sum()
    assert float(plain["tag_accuracy"].weight) == len(labels_m)
