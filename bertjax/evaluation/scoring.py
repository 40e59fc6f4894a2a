"""Held-out figures of scores: how they go with the right ones, and how well they rank passages for queries.

Letters: n examples, m of one query.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bertjax.evaluation.judgement import Figure, Judgement, mean_of, resampled

_TOP = 10  # passages that a reader looks at


def judge_scores(name: str, told_n: np.ndarray, scores_n: np.ndarray) -> Judgement:
    """Returns how numbers that were told go with the right ones: both correlations, and the mean error.

    Args:
      name: of the examples.
    """

    figures = correlations(told_n, scores_n) | {"mean error": mean_of(np.abs(told_n - scores_n))}
    middle = np.abs(scores_n - np.median(scores_n)).mean()
    return Judgement(name, len(told_n), figures, f"guessing the median errs by {middle:.4f}", [], {})


def correlations(told_n: np.ndarray, scores_n: np.ndarray) -> dict[str, Figure]:
    """Returns how the order of numbers that were told goes with that of the right ones, and how the numbers do."""
    from scipy import stats  # takes a second to import

    def correlation(kind: Callable[..., Any]) -> Figure:
        return resampled(lambda some: _correlation(kind, told_n[some], scores_n[some]), len(told_n))

    return {"Spearman": correlation(stats.spearmanr), "Pearson": correlation(stats.pearsonr)}


def _correlation(kind: Callable[..., Any], one_n: np.ndarray, other_n: np.ndarray) -> float:
    if min(np.ptp(one_n), np.ptp(other_n)) == 0:  # all the same: there is none
        return math.nan
    return float(kind(one_n, other_n).statistic)


def judge_ranking(name: str, told_n: np.ndarray, relevance_n: np.ndarray, queries_n: Sequence[object]) -> Judgement:
    """Returns how well scores rank the passages of each query; queries that have no relevant one do not count.

    Args:
      told_n: a score for each passage.
      relevance_n: how well it answers in fact, from 0 to 1.
      queries_n: what tells its query from others.
    """
    of_query: dict[object, list[int]] = {}
    for number, query in enumerate(queries_n):
        of_query.setdefault(query, []).append(number)
    reciprocals, gains, recalls = [], [], []
    for numbers in of_query.values():
        relevance_m = relevance_n[numbers]
        if not relevance_m.any():
            continue
        order_m = np.argsort(-told_n[numbers], kind="stable")
        places_r = np.flatnonzero(relevance_m[order_m] > 0)  # of the relevant ones, from 0
        reciprocals.append(1 / (1 + places_r[0]) if places_r[0] < _TOP else 0.0)
        gains.append(_gain(relevance_m[order_m]) / _gain(np.sort(relevance_m)[::-1]))
        recalls.append((places_r < _TOP).mean())
    queries = len(reciprocals)
    each = len(told_n) / len(of_query)
    note = f"{queries:,} of {len(of_query):,} queries, of {each:.1f} passages, have a relevant one"
    if not queries:
        return Judgement(name, len(told_n), {}, note, [], {"queries": 0})
    figures = {f"nDCG@{_TOP}": gains, f"MRR@{_TOP}": reciprocals, f"recall@{_TOP}": recalls}
    return Judgement(
        name,
        len(told_n),
        {key: mean_of(np.array(values)) for key, values in figures.items()},
        note,
        [],
        {"queries": queries},
    )


def _gain(relevance_m: np.ndarray) -> float:
    """Returns the discounted cumulative gain of passages in their order (Järvelin and Kekäläinen 2002)."""
    top = relevance_m[:_TOP]
    return float((top / np.log2(np.arange(len(top)) + 2)).sum())
