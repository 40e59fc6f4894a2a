"""Scores: the two losses as PyTorch defines them."""

from typing import Any

import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.data.batching.labelled import LabelledBatches
from bertjax.data.examples import Examples
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.objectives.scoring import Loss, scoring_objective
from bertjax.objectives.sequence_logits import sequence_logits


def binary(logits_n: Any, scores_n: Any) -> Any:
    """As `torch.nn.BCEWithLogitsLoss` has it."""
    p_n = 1 / (1 + np.exp(-logits_n))
    return -(scores_n * np.log(p_n) + (1 - scores_n) * np.log(1 - p_n))


@pytest.mark.parametrize("loss, expected", [("squared", lambda x, y: (x - y) ** 2), ("binary", binary)])
def test_the_loss_is_pytorchs(loss: Loss, expected: Any) -> None:
    model = SequenceClassifier(Bert(BertConfig(60, 16, 1, 2, 32, 16, dropout=0.0, init_scale=0.5)), 1)
    params = drawn_params(model, seed=1)
    lengths, scores_n = [9, 3, 5, 2], np.array([0.25, 1, 0, 0.5], np.float32)
    ids, starts_n = np.arange(5, 5 + sum(lengths), dtype=np.int32), np.concatenate(([0], np.cumsum(lengths)))
    batches = LabelledBatches(Examples("", "", ids, starts_n, np.array(lengths), scores_n), batch_size=4, seed=0)
    batch = batches.batch_at(0)
    logits_bk, there_bk = np.asarray(sequence_logits(model, params, batch), np.float64)[..., 0], batch.weights_bk > 0
    assert sorted(batch.labels_bk[there_bk]) == sorted(scores_n)
    objective = scoring_objective(model, loss)
    told = objective.metrics(params, batch, None)["score_loss"]
    assert float(objective.loss_counts(batch)["score_loss"]) == float(told.weight) == 4
    by_hand = expected(logits_bk[there_bk], batch.labels_bk[there_bk].astype(np.float64)).mean()
    assert float(told.total / told.weight) == pytest.approx(by_hand, rel=1e-5)
    np.testing.assert_array_equal(scores_n[batches.numbers_at(0)[there_bk]], batch.labels_bk[there_bk])
    assert (batches.numbers_at(0)[~there_bk] == -1).all()
