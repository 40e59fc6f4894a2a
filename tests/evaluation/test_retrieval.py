"""Figures of embeddings: ranks by a loop, what they come to, and how evenly texts are spread."""

import math

import numpy as np
import pytest

from bertjax.evaluation.retrieval import ranks_of, retrieval_figures, uniformity


def unit(seed: int, m: int, e: int = 4) -> np.ndarray:
    vectors_me = np.random.default_rng(seed).normal(size=(m, e)).astype(np.float32)
    return vectors_me / np.linalg.norm(vectors_me, axis=-1, keepdims=True)


def test_ranks_leave_out_an_anchors_other_positives_and_itself() -> None:
    """An anchor with three positives, texts that are anchors and positives, and examples that are repeated."""
    texts_nr = np.array([[0, 1], [0, 2], [0, 3], [1, 4], [5, 0], [6, 7], [6, 7], [8, 9], [10, 11], [2, 3]])
    unit_me = unit(1, 12)
    positives = sorted(set(texts_nr[:, 1].tolist()))
    expected = []
    for anchor, own in texts_nr.tolist():
        right = {positive for other, positive in texts_nr.tolist() if other == anchor} | {anchor}
        near = [unit_me[anchor] @ unit_me[text] for text in positives if text not in right]
        expected.append(1 + sum(one >= unit_me[anchor] @ unit_me[own] for one in near))
    assert ranks_of(unit_me, texts_nr).tolist() == expected and len(set(expected)) > 3
    assert ranks_of(np.ones_like(unit_me), texts_nr).tolist() == [
        1 + sum(text not in {b for a, b in texts_nr.tolist() if a == anchor} | {anchor} for text in positives)
        for anchor in texts_nr[:, 0].tolist()
    ]


def test_figures_of_ranks() -> None:
    figures = retrieval_figures(np.array([1, 2, 10, 11]))
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(
        {
            "MRR@10": (1 + 1 / 2 + 1 / 10) / 4,
            "accuracy@1": 1 / 4,
            "nDCG@10": (1 + 1 / math.log2(3) + 1 / math.log2(11)) / 4,
            "recall@10": 3 / 4,
        }
    )
    assert all(figure.low <= figure.value <= figure.high for figure in figures.values())


def test_uniformity_is_0_of_one_point_and_low_on_a_sphere() -> None:
    assert uniformity(np.ones((30, 4)) / 2).value == pytest.approx(0)
    spread = uniformity(unit(0, 400, 64)).value
    assert spread == pytest.approx(-4, abs=0.2)  # d² is near 2
    assert uniformity(unit(0, 1)).value == 0
