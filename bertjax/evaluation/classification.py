"""Held-out figures of a classifier: accuracy, F1, Matthews's correlation, area under the curve, calibration.

Letters: n examples, c labels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax

from bertjax.evaluation.judgement import RESAMPLES, Figure, Judgement, resampled, with_interval
from bertjax.runs.report import Table

_SHOWN = 20  # labels in a table, those that are there most often
_BINS = 15  # of confidence, as Guo et al. 2017 have them


def judge_labels(name: str, logits_nc: np.ndarray, labels_n: np.ndarray, labels: Sequence[str]) -> Judgement:
    """Returns the figures of a classifier where each example has one label.

    Args:
      name: of the examples.
      logits_nc: what the model tells of each.
      labels_n: int, the right ones.
      labels: by their numbers.
    """
    count = len(labels)
    cells_n = labels_n.astype(np.int64) * count + logits_nc.argmax(-1)
    counts_cc = np.bincount(cells_n, minlength=count * count).reshape(count, count)
    figures = {key: _from_counts(figure, counts_cc) for key, figure in FIGURES.items()}
    if count == 2:
        figures["F1"] = _from_counts(second_f1, counts_cc)
    if len(np.unique(labels_n)) > 1:
        # Of two labels it is the second one's, as is F1; of more each label's probability tells it from all others.
        scores_nc, of_label = logits_nc[:, 1:] - logits_nc[:, :1], [1]
        if count > 2:
            scores_nc, of_label = log_softmax(logits_nc, -1), list(range(count))
        figures["AUC" if count == 2 else "macro AUC"] = mean_area(scores_nc, labels_n[:, None] == of_label)
    commonest = counts_cc.sum(1).max() / len(labels_n)
    temperature = best_temperature(logits_nc, labels_n)
    before, after = (calibration_error(logits_nc / t, labels_n) for t in (1.0, temperature))
    lines = [f"  {'label':<{_width(labels)}}{'examples':>10}{'found':>9}{'right of guessed':>18}"]
    for number in np.argsort(-counts_cc.sum(1), kind="stable")[:_SHOWN]:
        there, guessed, right = counts_cc[number].sum(), counts_cc[:, number].sum(), counts_cc[number, number]
        lines.append(_row(labels, number, there, right, guessed))
    lines.append(
        f"  probabilities are {before:.1%} off on average; at a temperature of {temperature:.2f}, which suits these "
        f"examples best, {after:.1%}"
    )
    return Judgement(
        name,
        len(labels_n),
        figures,
        f"the commonest label alone has {commonest:.4f}",
        lines,
        {
            "labels": list(labels),
            "confusion": counts_cc.tolist(),  # a row for each label, by what was guessed
            "temperature": temperature,
            "calibration_error": {"before": before, "after": after},
        },
        [*_confusions(counts_cc, labels), _calibration(logits_nc, labels_n, temperature)],
    )


def judge_several(name: str, logits_nc: np.ndarray, has_nc: np.ndarray, labels: Sequence[str]) -> Judgement:
    """Returns the figures of a classifier where an example has several labels, or none.

    Args:
      name, logits_nc, labels: as of `judge_labels`; what is above 0 is guessed.
      has_nc: 1 where an example has a label, else 0.
    """
    guessed_nc, has_nc = logits_nc > 0, has_nc > 0
    right_nc, all_right_n = guessed_nc & has_nc, (guessed_nc == has_nc).all(-1)

    def of(f1: Callable[..., float]) -> Figure:
        return resampled(lambda s: f1(*(some_nc[s].sum(0) for some_nc in (right_nc, has_nc, guessed_nc))), len(has_nc))

    lines = [f"  {'label':<{_width(labels)}}{'examples':>10}{'found':>9}{'right of guessed':>18}"]
    there_c, right_c, guessed_c = has_nc.sum(0), right_nc.sum(0), guessed_nc.sum(0)
    for number in np.argsort(-there_c, kind="stable")[:_SHOWN]:
        lines.append(_row(labels, number, there_c[number], right_c[number], guessed_c[number]))
    counts = {"examples_of": there_c.tolist(), "right": right_c.tolist(), "guessed": guessed_c.tolist()}
    figures = {
        "micro F1": of(lambda *counts: _f1(*(c.sum(keepdims=True) for c in counts))),
        "macro F1": of(_f1),
        "all right": resampled(lambda some: float(all_right_n[some].mean()), len(has_nc)),
    }
    if (has_nc.any(0) & ~has_nc.all(0)).any():
        figures["macro AUC"] = mean_area(logits_nc, has_nc)
    return Judgement(
        name,
        len(has_nc),
        figures,
        f"{(~has_nc.any(-1)).mean():.4f} have no label",
        lines,
        # Each label by itself is one of two, having it or not.
        {"labels": list(labels), **counts, "temperature": best_temperature(*_as_two(logits_nc, has_nc))},
        [table_by_label(labels, there_c, right_c, guessed_c)],
    )


def _as_two(logits_nc: np.ndarray, has_nc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits_m = logits_nc.ravel()
    return np.stack([np.zeros_like(logits_m), logits_m], 1), has_nc.ravel().astype(np.int64)


def accuracy(counts_cc: np.ndarray) -> float:
    """Returns the share of examples on the diagonal of counts by label and guess."""
    return float(np.trace(counts_cc) / counts_cc.sum())


def macro_f1(counts_cc: np.ndarray) -> float:
    """Returns the mean of the F1 of each label that is there or was guessed."""
    return _f1(np.diagonal(counts_cc), counts_cc.sum(1), counts_cc.sum(0))


def second_f1(counts_cc: np.ndarray) -> float:
    """Returns the F1 of the second of two labels, as of 1 beside 0; 0 where it is neither there nor guessed."""
    both = counts_cc[1].sum() + counts_cc[:, 1].sum()
    return float(2 * counts_cc[1, 1] / both) if both else 0.0


def matthews(counts_cc: np.ndarray) -> float:
    """Returns Matthews's correlation, of any number of labels (Gorodkin 2004); 0 where it has no meaning."""
    total, there_c, guessed_c = float(counts_cc.sum()), *(counts_cc.sum(axis).astype(float) for axis in (1, 0))
    spread = (total**2 - there_c @ there_c) * (total**2 - guessed_c @ guessed_c)
    return float((np.trace(counts_cc) * total - there_c @ guessed_c) / math.sqrt(spread)) if spread > 0 else 0.0


FIGURES = {"accuracy": accuracy, "macro F1": macro_f1, "MCC": matthews}


def mean_area(scores_nc: np.ndarray, has_nc: np.ndarray) -> Figure:
    """Returns the area under the ROC curve: how often what has a label scores more for it than what has it not.

    It is the mean over labels, without those that all examples have, or none; NaN where no other is left.

    Args:
      has_nc: bool, whether an example has a label.
    """
    from scipy.stats import rankdata  # takes a second to import

    places_nc = rankdata(scores_nc, "dense", axis=0).astype(np.int64)

    def of(numbers: np.ndarray) -> float:
        times_n = np.bincount(numbers, minlength=len(has_nc))
        areas = [_area(place_n, has_n, times_n) for place_n, has_n in zip(places_nc.T, has_nc.T, strict=True)]
        there = [area for area in areas if not math.isnan(area)]
        return float(np.mean(there)) if there else math.nan

    return resampled(of, len(has_nc))


def _area(place_n: np.ndarray, has_n: np.ndarray, times_n: np.ndarray) -> float:
    """Returns the area of one label, each example counting so many times; equal scores count as half."""
    with_m, without_m = np.bincount(place_n, times_n * has_n), np.bincount(place_n, times_n * ~has_n)
    pairs = with_m.sum() * without_m.sum()
    return float(with_m @ (without_m.cumsum() - without_m / 2) / pairs) if pairs else math.nan


def calibration_error(logits_nc: np.ndarray, labels_n: np.ndarray) -> float:
    """Returns by how much the probability of what is guessed differs from how often it is right.

    It is the expected calibration error (Guo et al. 2017, arXiv:1706.04599, section 2), over bins of equal width.
    """
    probabilities_n = np.exp(log_softmax(logits_nc, -1).max(-1))
    bins_n = np.minimum((probabilities_n * _BINS).astype(int), _BINS - 1)
    off_n = (logits_nc.argmax(-1) == labels_n) - probabilities_n
    return float(np.abs(np.bincount(bins_n, off_n)).sum() / len(labels_n))


def best_temperature(logits_nc: np.ndarray, labels_n: np.ndarray) -> float:
    """Returns what logits are to be divided by for the likeliest labels (Guo et al. 2017, section 4.2), 0.05 to 20."""
    from scipy.optimize import minimize_scalar  # takes half a second to import

    def loss(log_temperature: float) -> float:
        told_nc = log_softmax(logits_nc / np.exp(log_temperature), -1)
        return float(-np.take_along_axis(told_nc, labels_n[:, None], 1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-math.log(20), math.log(20)), method="bounded").x))


def _from_counts(figure: Callable[[np.ndarray], float], counts_cc: np.ndarray) -> Figure:
    """A figure of counts; to draw examples anew is to draw their cells."""
    there = np.flatnonzero(counts_cc)
    total = int(counts_cc.sum())
    drawn_rm = np.random.default_rng(0).multinomial(total, counts_cc.ravel()[there] / total, RESAMPLES)
    samples, cells = [], np.zeros(counts_cc.size, np.int64)
    for drawn_m in drawn_rm:
        cells[there] = drawn_m
        samples.append(figure(cells.reshape(counts_cc.shape)))
    return with_interval(figure(counts_cc), samples)


def _f1(right_c: np.ndarray, there_c: np.ndarray, guessed_c: np.ndarray) -> float:
    both_c = there_c + guessed_c
    return float((2 * right_c[both_c > 0] / both_c[both_c > 0]).mean()) if both_c.any() else math.nan


def table_by_label(labels: Sequence[str], there_c: np.ndarray, right_c: np.ndarray, guessed_c: np.ndarray) -> Table:
    """Returns what a report shows of each label: examples, and how many of them, and of guesses, are right."""
    rows = [
        [labels[number], f"{there_c[number]:,.0f}", *_shares(right_c[number], there_c[number], guessed_c[number])]
        for number in np.argsort(-there_c, kind="stable")[:_SHOWN]
    ]
    columns = ["Label", "Examples", "Found", "Right of guessed"]
    what = "How many of each label's examples are found, and how many guesses are right."
    return Table("By label", what, columns, rows, 3)


def _confusions(counts_cc: np.ndarray, labels: Sequence[str]) -> list[Table]:
    by_label = table_by_label(labels, counts_cc.sum(1), np.diagonal(counts_cc), counts_cc.sum(0))
    most = np.sort(np.argsort(-counts_cc.sum(1), kind="stable")[:_SHOWN])
    rows = [[labels[number], *(f"{count:,}" for count in counts_cc[number, most])] for number in most]
    columns = ["Label", *(labels[number] for number in most)]
    what = "Examples of each label, a row, by what is guessed, a column."
    return [by_label, Table("Confusions", what, columns, rows, len(most))]


def _calibration(logits_nc: np.ndarray, labels_n: np.ndarray, temperature: float) -> Table:
    """How often guesses are right, by how sure the model is of them."""
    probabilities_n = np.exp(log_softmax(logits_nc, -1).max(-1))
    right_n, rows = logits_nc.argmax(-1) == labels_n, []
    for low in range(0, 100, 10):
        some_n = (probabilities_n * 100 >= low) & ((probabilities_n * 100 < low + 10) | (low == 90))
        if count := int(some_n.sum()):
            shares = f"{probabilities_n[some_n].mean():.1%}", f"{right_n[some_n].mean():.1%}"
            rows.append([f"{low}% to {low + 10}%", f"{count:,}", *shares])
    before, after = (calibration_error(logits_nc / t, labels_n) for t in (1.0, temperature))
    what = (
        f"A guess of 80% should be right in 80 of 100 cases. Probabilities are {before:.1%} off on average; logits "
        f"divided by {temperature:.2f}, which suits these examples best, {after:.1%}. So are they divided by 'bertjax "
        "predict --calibrated' and Classifier.load(..., calibrated=True)."
    )
    return Table("Calibration", what, ["Sure by", "Examples", "Mean probability", "Right"], rows, 3)


def _shares(right: Any, there: Any, guessed: Any) -> list[str]:
    return [f"{right / count:.1%}" if count else "-" for count in (there, guessed)]


def _width(labels: Sequence[str]) -> int:
    return max(10, *(len(label) for label in labels))


def _row(labels: Sequence[str], number: int, there: Any, right: Any, guessed: Any) -> str:
    shares = _shares(right, there, guessed)
    return f"  {labels[number]:<{_width(labels)}}{there:>10,}" + "{:>9}{:>18}".format(*shares)
