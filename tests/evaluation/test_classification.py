"""Figures of a classifier, against scikit-learn's and arithmetic by hand."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics

from bertjax.evaluation.classification import (
    best_temperature,
    calibration_error,
    judge_labels,
    judge_several,
    macro_f1,
    matthews,
    mean_area,
)
from bertjax.evaluation.judgement import describe


def made(count: int, labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, float [n, c], and labels, the last of which nobody has."""
    rng = np.random.default_rng(seed)
    labels_n = rng.integers(max(2, labels - 1), size=count)
    return rng.normal(size=(count, labels)) + 1.5 * np.eye(labels)[labels_n], labels_n


@pytest.mark.parametrize("labels", [2, 3, 6])
def test_figures_of_one_label_are_scikit_learns(labels: int) -> None:
    logits_nc, labels_n = made(80, labels, seed=labels)
    guessed_n = logits_nc.argmax(-1)
    judged = judge_labels("made", logits_nc, labels_n, [f"label{c}" for c in range(labels)])
    expected = {
        "accuracy": metrics.accuracy_score(labels_n, guessed_n),
        "macro F1": metrics.f1_score(labels_n, guessed_n, average="macro"),
        "MCC": metrics.matthews_corrcoef(labels_n, guessed_n),
    }
    if labels == 2:
        expected["F1"] = metrics.f1_score(labels_n, guessed_n)
        expected["AUC"] = metrics.roc_auc_score(labels_n, softmax(logits_nc, -1)[:, 1])
    else:
        expected["macro AUC"] = np.mean(
            [metrics.roc_auc_score(labels_n == c, softmax(logits_nc, -1)[:, c]) for c in range(labels - 1)]
        )
    assert {name: figure.value for name, figure in judged.figures.items()} == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(
        judged.detail["confusion"], metrics.confusion_matrix(labels_n, guessed_n, labels=range(labels))
    )
    for figure in judged.figures.values():
        assert figure.low < figure.value < figure.high < figure.low + 0.5
    assert describe(judged).startswith(f"made, 80 examples: accuracy {expected['accuracy']:.4f} (")


def test_the_interval_is_that_of_the_share() -> None:
    """For an accuracy the normal approximation is near: 1.96 sqrt(p (1 - p) / n)."""
    labels_n = np.arange(1000) % 4 == 0
    judged = judge_labels("made", np.zeros((1000, 2)) + [1, 0], labels_n.astype(int), ["no", "yes"])
    value, low, high = judged.figures["accuracy"]
    assert value == 0.75 and judged.note == "the commonest label alone has 0.7500"
    assert high - low == pytest.approx(2 * 1.96 * (0.75 * 0.25 / 1000) ** 0.5, rel=0.12)


def test_figures_of_several_labels_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    has_nc = rng.random((90, 4)) < [0.5, 0.2, 0.05, 0.3]
    logits_nc = rng.normal(size=(90, 4)) + 2 * has_nc - 1
    judged = judge_several("made", logits_nc, has_nc.astype(np.float32), list("abcd"))
    guessed_nc = logits_nc > 0
    assert {name: figure.value for name, figure in judged.figures.items()} == pytest.approx(
        {
            "micro F1": metrics.f1_score(has_nc, guessed_nc, average="micro"),
            "macro F1": metrics.f1_score(has_nc, guessed_nc, average="macro"),
            "all right": metrics.accuracy_score(has_nc, guessed_nc),
            "macro AUC": metrics.roc_auc_score(has_nc, logits_nc, average="macro"),
        }
    )
    assert [line.split()[:2] for line in judged.table[1:]] == [
        [name, str(n)] for n, name in sorted(zip(has_nc.sum(0), "abcd", strict=True), reverse=True)
    ]


def test_what_has_no_meaning() -> None:
    assert matthews(np.array([[6, 0], [4, 0]])) == 0  # one guess for all tells nothing
    assert macro_f1(np.array([[6, 0], [4, 0]])) == pytest.approx(12 / 16 / 2)
    assert macro_f1(np.array([[3, 0, 0], [0, 2, 0], [0, 0, 0]])) == 1  # a label that is nowhere does not count
    assert np.isnan(mean_area(np.array([[1.0], [2.0]]), np.array([[True], [True]])).value)
    assert mean_area(np.array([[1.0, 1]] * 3), np.array([[False, True], [True, True], [False, True]])).value == 0.5


def test_calibration_is_measured_and_mended_by_a_temperature() -> None:
    """Logits of which labels are drawn are right; three times as great they are three times too sure."""
    rng = np.random.default_rng(1)
    logits_nc = rng.normal(size=(4000, 3)) * 1.5
    labels_n = (softmax(logits_nc, -1).cumsum(-1) < rng.random((4000, 1))).sum(-1)
    assert best_temperature(3 * logits_nc, labels_n) == pytest.approx(3, rel=0.1)
    has_nc = rng.random((4000, 3)) < expit(logits_nc)
    judged = judge_several("made", 3 * logits_nc, has_nc.astype(np.float32), list("abc"))
    assert judged.detail["temperature"] == pytest.approx(3, rel=0.1)
    assert calibration_error(logits_nc, labels_n) < 0.03 < 0.15 < calibration_error(3 * logits_nc, labels_n)
    assert calibration_error(np.array([[9.0, 0.0]] * 4), np.array([0, 0, 0, 1])) == pytest.approx(0.25, abs=1e-3)
