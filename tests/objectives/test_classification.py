"""Classification: the loss as PyTorch defines it, and logits that no neighbour in a row can change."""

from typing import Any

import jax
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.data.batching.labelled import LabelledBatch, LabelledBatches
from bertjax.data.examples import Examples
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.objectives.classification import classification_objective
from bertjax.objectives.sequence_logits import sequence_logits

MODEL = SequenceClassifier(Bert(BertConfig(60, 16, 1, 2, 32, 16, dropout=0.0, init_scale=0.5)), 3)
LENGTHS = [9, 3, 5, 12, 2, 7, 4, 4]


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return drawn_params(MODEL, seed=1)


@pytest.fixture(scope="module")
def packed() -> LabelledBatch:
    ids = np.random.default_rng(0).integers(5, 60, sum(LENGTHS), np.int32)
    starts_n, labels_n = np.concatenate(([0], np.cumsum(LENGTHS))), np.array([0, 1, 2, 0, 1, 1, 0, 1], np.int32)
    made = Examples("made", "", ids, starts_n, np.array(LENGTHS) // 2, labels_n)
    return LabelledBatches(made, batch_size=8, row_length=24, seed=0).batch_at(0)


def alone(batch: LabelledBatch) -> LabelledBatch:
    """The sequences of a batch, each in a row of its own."""
    rows, slots = np.nonzero(batch.weights_bk)
    fields: list[np.ndarray] = [np.zeros((len(rows), 16), np.int32) for _ in range(4)]
    for number, (row, slot) in enumerate(zip(rows, slots, strict=True)):
        at = np.flatnonzero(batch.sequences_bt[row] == slot + 1)
        for field, values in zip(fields, (*batch[:3], np.minimum(batch.sequences_bt, 1)), strict=True):
            field[number, : len(at)] = values[row, at]
    one = (
        np.zeros((len(rows), 1), np.int32),
        batch.labels_bk[rows, slots][:, None],
        np.ones((len(rows), 1), np.float32),
    )
    return LabelledBatch(*fields, *one)


def test_packed_logits_are_those_of_single_sequences(params: dict[str, Any], packed: LabelledBatch) -> None:
    assert len(packed.tokens_bt) < len(LENGTHS)
    together = np.asarray(sequence_logits(MODEL, params, packed))[packed.weights_bk > 0]
    single = np.asarray(sequence_logits(MODEL, params, alone(packed)))[:, 0]
    np.testing.assert_allclose(together, single, rtol=0, atol=1e-5)
    assert np.abs(single - single[0]).max() > 0.1


def test_a_neighbour_changes_nothing(params: dict[str, Any], packed: LabelledBatch) -> None:
    changed = np.where((packed.sequences_bt == 1) | (packed.sequences_bt == 0), packed.tokens_bt, 7)
    before, after = (
        np.asarray(sequence_logits(MODEL, params, packed._replace(tokens_bt=t))) for t in (packed.tokens_bt, changed)
    )
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    assert np.abs(before[:, 1] - after[:, 1]).max() > 0.01


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_the_loss_is_pytorchs(
    params: dict[str, Any], packed: LabelledBatch, smoothing: float, weights: list[float] | None
) -> None:
    """As `torch.nn.CrossEntropyLoss(weight, label_smoothing)` says it: a weighted mean over labels and classes."""
    objective = classification_objective(MODEL, label_smoothing=smoothing, class_weights=weights)
    metrics = objective.metrics(params, packed, jax.random.key(0))  # the model has no dropout
    logits_nc = np.asarray(sequence_logits(MODEL, params, packed), np.float64)[packed.weights_bk > 0]
    labels_n, w_c = packed.labels_bk[packed.weights_bk > 0], np.array(weights or [1.0] * 3)
    log_nc = logits_nc - np.log(np.exp(logits_nc).sum(-1, keepdims=True))
    wanted_nc = (1 - smoothing) * np.eye(3)[labels_n] + smoothing / 3
    expected = -(wanted_nc * w_c * log_nc).sum() / w_c[labels_n].sum()
    loss = metrics["label_loss"]
    assert float(loss.total / loss.weight) == pytest.approx(expected, rel=1e-5)
    assert float(objective.loss_counts(packed)["label_loss"]) == pytest.approx(float(loss.weight))
    plain = objective.metrics(params, packed, None)["label_loss"]  # held out, it is the same whatever was learned by
    assert float(plain.total / plain.weight) == pytest.approx(-log_nc[range(8), labels_n].mean(), rel=1e-5)


@pytest.mark.parametrize("smoothing, weights", [(0.0, None), (0.2, [0.5, 2.0, 4.0])])
def test_the_loss_of_several_labels_is_pytorchs(
    params: dict[str, Any], packed: LabelledBatch, smoothing: float, weights: list[float] | None
) -> None:
    """As `torch.nn.BCEWithLogitsLoss(pos_weight=weights)` says it, of targets that are smoothed."""
    has_bkc = (np.arange(packed.labels_bk.size * 3).reshape(*packed.labels_bk.shape, 3) % 5 < 2).astype(np.float32)
    batch = packed._replace(labels_bk=has_bkc)
    objective = classification_objective(MODEL, several=True, label_smoothing=smoothing, class_weights=weights)
    logits_nc = np.asarray(sequence_logits(MODEL, params, packed), np.float64)[packed.weights_bk > 0]
    has_nc = has_bkc[packed.weights_bk > 0]

    def expected(wanted_nc: np.ndarray, w_c: np.ndarray) -> float:
        yes_nc, no_nc = np.log1p(np.exp(-logits_nc)), np.log1p(np.exp(logits_nc))
        return (w_c * wanted_nc * yes_nc + (1 - wanted_nc) * no_nc).mean()

    learning = objective.metrics(params, batch, jax.random.key(0))["label_loss"]
    wanted_nc = (1 - smoothing) * has_nc + smoothing / 2
    assert float(learning.total / learning.weight) == pytest.approx(
        expected(wanted_nc, np.array(weights or [1.0] * 3)), rel=1e-5
    )
    assert float(objective.loss_counts(batch)["label_loss"]) == float(learning.weight) == len(LENGTHS)
    plain = objective.metrics(params, batch, None)
    assert float(plain["label_loss"].total / 8) == pytest.approx(expected(has_nc, np.ones(3)), rel=1e-5)
    assert float(plain["label_accuracy"].total / 8) == pytest.approx(((logits_nc > 0) == has_nc).mean())
