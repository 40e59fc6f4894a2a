"""Figures of embeddings: ranks by a loop, what they come to, and how evenly texts are spread."""

import math

import numpy as np
import pytest

from bertjax.config import Config, TaskConfig
from bertjax.data.sources.lines import Part
from bertjax.data.sources.records import Place
from bertjax.data.tuples import TupleRow, Tuples
from bertjax.evaluation.retrieval import Embedded, judge, ranks_of, retrieval_figures, uniformity
from bertjax.runs.report import Table


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
    assert ranks_of(unit_me, texts_nr).ranks_n.tolist() == expected and len(set(expected)) > 3
    assert ranks_of(np.ones_like(unit_me), texts_nr).ranks_n.tolist() == [
        1 + sum(text not in {b for a, b in texts_nr.tolist() if a == anchor} | {anchor} for text in positives)
        for anchor in texts_nr[:, 0].tolist()
    ]


def judged(**task: object) -> Table:
    """The table of the hardest of five examples: texts number i and j, whose vectors are those of these numbers."""
    pairs = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    angles_m = np.array([0, 0.1, 1, 2.4, 2, 2.1, 2.2, 2.5, 4, 4.5])  # 2 is nearer to 5 and 1 than to 3
    vectors_me = np.stack([np.cos(angles_m), np.sin(angles_m)], 1).astype(np.float32)
    config = Config(task=TaskConfig("embed", **{"pair": "pair"} | task))  # type: ignore[arg-type]
    texts_nr = np.array([(a, b if config.task.pair else a) for a, b in pairs])
    scores_n, place = np.array([1, 0.9, 0.8, 0, 0.5]), Place(Part("a.csv"), "row", 1)
    rows = [TupleRow((f"t{a}", f"t{b}"), score, place) for (a, b), score in zip(texts_nr, scores_n, strict=True)]
    examples = Tuples("made", "", np.zeros(10, np.int32), np.arange(11), texts_nr, scores_n.astype(np.float32))
    (table,) = judge(config, Embedded(vectors_me, 1.0), examples, rows, batch_size=5).tables
    return table


def test_the_hardest_examples_are_those_that_find_another_text() -> None:
    table = judged()
    assert [row[:4] for row in table.rows[:2]] == [["t2", "t3", "t1", "3"], ["t6", "t7", "t5", "3"]]
    assert table.rows[0][4:] == [f"{np.cos(1.4):.3f}", f"{np.cos(0.9):.3f}"] and len(table.rows) == 5
    scored = judged(loss="cosent")
    assert [row[:3] for row in scored.rows[:2]] == [["t2", "t3", "0.9"], ["t6", "t7", "0"]]
    alone = judged(pair=None)  # each pair once
    assert [row[:2] for row in alone.rows] == [["t4", "t6"], ["t0", "t2"], ["t8", "t6"]]


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
