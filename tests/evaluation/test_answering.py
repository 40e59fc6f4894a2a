"""Figures of answers: SQuAD's, held to what its own evaluation says of cases by hand, and the threshold for none."""

import numpy as np
import pytest

from bertjax.data.questions import Answer, Question
from bertjax.data.sources.lines import Part
from bertjax.data.sources.records import Place
from bertjax.evaluation.answering import exact_and_f1, fit_threshold, judge_answers, normal_words
from bertjax.evaluation.judgement import describe
from bertjax.inference.spans import FoundSpan


def asked(context: str, *answers: str) -> Question:
    return Question("?", context, tuple(Answer(text, 0) for text in answers), Place(Part("a"), "question", 1))


# What evaluate-v2.0.py says of each, run by itself.
CASES = [
    ("Denver Broncos", ["Denver Broncos"], 1, 1),
    ("the  denver Broncos!", ["Denver broncos"], 1, 1),
    ("Broncos", ["Denver Broncos", "The Denver Broncos team"], 0, 2 / 3),
    ("in the city of Rome", ["Rome", "city of Rome"], 0, 6 / 7),
    ("U.S.", ["us"], 1, 1),
    ("an apple a day", ["apple day"], 1, 1),
    ("theatre", ["atre"], 0, 0),
    ("1,000", ["1000"], 1, 1),
    ("well-known", ["well known"], 0, 0),  # punctuation goes, it is no space
    ("la la la", ["la la"], 0, 0.8),
    ("", [], 1, 1),
    ("Rome", [], 0, 0),
    ("", ["Rome"], 0, 0),
    ("the", [], 1, 1),  # whose words do not count
    ("", ["The"], 1, 1),
    ("«Rome»", ["Rome"], 0, 0),  # only ASCII's punctuation goes
]


@pytest.mark.parametrize("told, right, exact, f1", CASES)
def test_exact_match_and_f1_are_squads(told: str, right: list[str], exact: int, f1: float) -> None:
    assert exact_and_f1(told, asked("", *right)) == pytest.approx((exact, f1))


def test_words_that_count() -> None:
    assert normal_words("The A-Team's\tan (old) thé") == ["ateams", "old", "thé"]
    assert normal_words("A.B. the.") == ["ab"]


def test_the_threshold_gives_the_best_figure() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        margins_q = rng.integers(-3, 4, 7).astype(float)
        spans_q, nones_q = rng.random(7), rng.integers(0, 2, 7).astype(float)
        margins_q[0], spans_q[0] = np.inf, nones_q[0]  # a context without tokens

        def figure(threshold: float, *of: np.ndarray) -> float:
            margins_q, spans_q, nones_q = of
            return float(np.where(margins_q > threshold, nones_q, spans_q).mean())

        of = (margins_q, spans_q, nones_q)
        best = max(figure(threshold, *of) for threshold in (-9.0, *margins_q, 1e7))
        assert figure(fit_threshold(*of), *of) == pytest.approx(best) and np.isfinite(fit_threshold(*of))


def test_none_is_told_from_a_threshold_on_and_counts_where_there_is_none() -> None:
    context = "Rome is old"
    questions = [asked(context, "Rome"), asked(context, "old"), asked(context), asked(context), asked("")]
    margins = [-3.0, 1.0, 0.5, 2.0, np.inf]
    spans = [(0, 4), (0, 7), (0, 4), (8, 11), (0, 0)]
    found = [FoundSpan(*span, 0.0, 0.5, margin, 0.25) for span, margin in zip(spans, margins, strict=True)]
    never = judge_answers("made", questions, found)
    assert {name: figure.value for name, figure in never.figures.items()} == {"F1": 0.4, "exact match": 0.4}
    assert "no answer to any has F1 0.6000, and is never told" in describe(never)
    judged = judge_answers("made", questions, found, fits=True)
    assert judged.figures["F1"].value == 0.8 and -3 < judged.detail["threshold"] < 0.5
    assert judged.detail["of_kind"]["without one"]["count"] == 3
    assert judged.detail["of_kind"]["without one"]["F1"]["value"] == 1
    assert [line.split(": ")[0] for line in judged.table] == ["  2 with an answer", "  3 without one"]
    (table,) = judged.tables
    assert table.rows == [["?", "old", "-", context]]
    kept = judge_answers("made", questions, found, threshold=1.5)
    assert kept.figures["F1"].value == 0.6 and kept.detail["threshold"] == 1.5
    answerable = judge_answers("made", questions[:2], found[:2], fits=True)
    assert answerable.detail["threshold"] is None and not answerable.table and not answerable.note
