"""Figures of numbers and of rankings, against scipy's and scikit-learn's and arithmetic by hand."""

import numpy as np
import pytest
from sklearn import metrics

from bertjax.evaluation.scoring import judge_ranking, judge_scores


def test_numbers_that_go_together() -> None:
    rng = np.random.default_rng(0)
    scores_n = rng.normal(size=60)
    told_n = np.exp(scores_n)
    judged = judge_scores("made", told_n, scores_n)
    assert judged.figures["Spearman"] == pytest.approx((1, 1, 1))  # in the same order
    value, low, high = judged.figures["Pearson"]
    assert value == pytest.approx(np.corrcoef(told_n, scores_n)[0, 1]) and low < value < high < 1
    assert judged.figures["mean error"].value == pytest.approx(np.abs(told_n - scores_n).mean())
    assert np.isnan(judge_scores("made", np.ones(5), np.arange(5.0)).figures["Spearman"].value)


def test_rankings() -> None:
    told_n, relevance_n = np.array([0.9, 0.5, 0.1, 0.2, 0.8, 0.3]), np.array([0, 1, 0.5, 1, 0, 0.0])
    queries = ["a", "a", "a", "b", "b", "c"]
    judged = judge_ranking("made", told_n, relevance_n, queries)
    of_a, of_b = (metrics.ndcg_score([relevance_n[s]], [told_n[s]], k=10) for s in (slice(0, 3), slice(3, 5)))
    assert judged.figures["nDCG@10"].value == pytest.approx((of_a + of_b) / 2)
    assert judged.figures["MRR@10"].value == (1 / 2 + 1 / 2) / 2 and judged.figures["recall@10"].value == 1
    assert judged.note == "2 of 3 queries, of 2.0 passages, have a relevant one"
    many = judge_ranking("made", -np.arange(20.0), np.arange(20) % 12 == 11, ["a"] * 20)  # only the twelfth
    assert many.figures["MRR@10"].value == many.figures["nDCG@10"].value == many.figures["recall@10"].value == 0
    assert judge_ranking("made", told_n, np.zeros(6), queries).figures == {}
