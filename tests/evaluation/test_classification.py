"""Figures of a classifier, against arithmetic by hand."""

import numpy as np
import pytest

from bertjax.evaluation.classification import judge


def test_figures_are_those_of_their_definitions() -> None:
    """As `f1_score(average="macro")` and `matthews_corrcoef` of scikit-learn define them."""
    judged = judge(np.array([[5, 1, 0], [2, 3, 1], [0, 0, 8]]))
    assert judged.accuracy == 16 / 20 and judged.commonest == 8 / 20
    assert judged.macro_f1 == pytest.approx((10 / 13 + 6 / 10 + 16 / 17) / 3, abs=1e-12)
    # (16 * 20 - (6 * 7 + 6 * 4 + 8 * 9)) / sqrt((400 - 49 - 16 - 81) * (400 - 36 - 36 - 64))
    assert judged.mcc == pytest.approx(182 / (254 * 264) ** 0.5, abs=1e-12)


def test_of_two_labels_the_correlation_is_that_of_the_textbooks() -> None:
    tp, fn, fp, tn = 90, 10, 30, 70
    judged = judge(np.array([[tp, fn], [fp, tn]]))
    expected = (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert judged.mcc == pytest.approx(expected, abs=1e-12)


def test_one_guess_for_all_tells_nothing() -> None:
    judged = judge(np.array([[6, 0], [4, 0]]))
    assert (judged.accuracy, judged.commonest, judged.mcc) == (0.6, 0.6, 0.0)
    assert judged.macro_f1 == pytest.approx(12 / 16 / 2)
    assert judge(np.array([[3, 0, 0], [0, 2, 0], [0, 0, 0]])).macro_f1 == 1  # a label that is nowhere does not count
