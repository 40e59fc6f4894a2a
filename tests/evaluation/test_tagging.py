"""Figures of a tagger, held to seqeval's on tags that were recorded, and to arithmetic by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from bertjax.data.sources.lines import Part
from bertjax.data.sources.records import Place
from bertjax.data.tagged import NO_TAG, Sentence, TaggedExamples
from bertjax.data.tags import Scheme, Tags
from bertjax.evaluation.judgement import Judgement, describe
from bertjax.evaluation.tagging import hardest_sentences, judge_tags

SEQEVAL = json.loads((Path(__file__).parents[1] / "reference" / "tags.json").read_text())


def judge(there: list[list[str]], told: list[list[str]], scheme: Scheme | None) -> Judgement:
    """Figures of sentences; a word that is told "?" is not read."""
    names = sorted({tag for tags in (*there, *told) for tag in tags} - {"?"})
    numbers = {name: number for number, name in enumerate(names)} | {"?": NO_TAG}
    there_w, told_w = (np.array([numbers[tag] for tags in some for tag in tags]) for some in (there, told))
    word_starts_n = np.concatenate(([0], np.cumsum([len(tags) for tags in there])))
    nothing = np.zeros(0, np.int32)
    examples = TaggedExamples("made", "", nothing, nothing, nothing, word_starts_n, nothing, there_w)
    return judge_tags(examples, told_w, Tags(tuple(names), scheme))


@pytest.mark.parametrize("scheme", SEQEVAL)
def test_figures_of_entities_are_seqevals(scheme: Scheme) -> None:
    there, told = [tags for tags, _ in SEQEVAL[scheme]["found"]], SEQEVAL[scheme]["told"]
    figures = judge(there, told, scheme).figures
    assert [figures[name].value for name in ("precision", "recall", "F1")] == pytest.approx(SEQEVAL[scheme]["figures"])
    assert all(figure.low < figure.value < figure.high for figure in figures.values())
    assert 0.1 < figures["F1"].value < 0.9


def test_what_is_not_read_is_missed() -> None:
    there = [["B-x", "I-x", "O"], ["O", "B-y", "O", "O"], ["B-x", "O"]]
    told = [["B-x", "I-x", "O"], ["B-x", "B-y", "?", "?"], ["?", "?"]]
    judged = judge(there, told, "IOB2")
    values = {name: figure.value for name, figure in judged.figures.items()}
    assert values == pytest.approx({"F1": 2 / 3, "precision": 2 / 3, "recall": 2 / 3, "accuracy": 4 / 9})
    assert judged.detail["of_type"] == {
        "x": {"there": 2, "right": 1, "guessed": 2},
        "y": {"there": 1, "right": 1, "guessed": 1},
    }
    assert describe(judged).endswith(
        "; 3 entities, IOB2; the commonest tag alone has accuracy 0.5556; 4 of 9 words are not read, and are missed"
    )
    assert [line.split() for line in judged.table] == [
        "entity there found right of guessed F1".split(),
        "x 2 50.0% 50.0% 0.5000".split(),
        "y 1 100.0% 100.0% 1.0000".split(),
    ]


def test_the_hardest_sentences_have_the_most_wrong_words() -> None:
    words, nothing = [("a", "b"), ("c", "d", "e"), ("f",)], np.zeros(0, np.int32)
    sentences = [Sentence(some, (), Place(Part("a"), "line", 1), {}) for some in words]
    starts_n, tags_w = np.array([0, 2, 5, 6]), np.array([0, 1, 1, 0, 0, 1])
    examples = TaggedExamples("made", "", nothing, nothing, nothing, starts_n, nothing, tags_w)
    told_w = np.array([0, 0, NO_TAG, 1, 0, 1])
    assert hardest_sentences(examples, told_w, sentences, Tags(("O", "X"), None)).rows == [
        ["c d e", "c: not read, not X; d: X, not O"],
        ["a b", "b: O, not X"],
    ]


def test_tags_that_mark_nothing_count_word_by_word() -> None:
    """As `f1_score(average="macro")` of scikit-learn defines it."""
    judged = judge([["n", "v", "n"], ["d", "n"]], [["n", "v", "d"], ["d", "?"]], None)
    assert judged.figures["accuracy"].value == 3 / 5
    assert judged.figures["macro F1"].value == pytest.approx((2 / 4 + 1 + 2 / 3) / 3)
    assert judged.table[0].split()[0] == "tag" and judged.detail["scheme"] is None


def test_no_entity_at_all_has_figures_of_nought() -> None:
    judged = judge([["O", "O"], ["O"]], [["O", "I-x"], ["O"]], "IOB2")
    assert [judged.figures[name].value for name in ("F1", "precision", "recall")] == [0, 0, 0]
    assert judged.figures["accuracy"].value == 2 / 3 and len(judged.table) == 1
