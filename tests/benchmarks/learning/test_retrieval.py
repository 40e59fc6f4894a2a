"""Pairs of sentences that follow each other, words in common, and the table."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.learning.retrieval import _weighed_words, next_sentences, render
from bertjax.config import DataConfig


def test_pairs_follow_each_other_and_no_sentence_is_in_two(wikitext: Path) -> None:
    pairs = next_sentences(DataConfig(path=str(wikitext)), "test")
    assert pairs and len(set(pairs)) == len(pairs)
    paragraphs = [line.strip().split(" . ") for line in (wikitext / "wiki.test.tokens").read_text().splitlines()]
    follow = {pair for paragraph in paragraphs for pair in zip(paragraph[::2], paragraph[1::2], strict=False)}
    assert {(first.lower(), second.lower().removesuffix(" .")) for first, second in pairs} <= {
        (first.lower(), second.lower().removesuffix(" .")) for first, second in follow
    }
    assert next_sentences(DataConfig(path=str(wikitext)), "test", least=50) == []


def test_rare_words_in_common_count_most() -> None:
    vectors = _weighed_words(["the lobster", "the LOBSTER sleeps", "the crane sleeps", "the crane sleeps too"])
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    assert unit[0] @ unit[1] > 0.5 > unit[0] @ unit[2] == 0  # what all have counts for nothing


def test_the_table_and_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"learned": 1000, "held_out": 2000, "words in common": {"MRR": 0.5}, "before": {"MRR": 0.25}}
    table = render(told | {"after": [{"MRR": 0.5}, {"MRR": 0.7}]})
    assert "| before | 0.250 |" in table and "| after 1,000 pairs, 2 seeds | 0.600 ± 0.141 |" in table
    for words, reason in (([], "no model to tune; give --init_from"), (["--seeds", "0"], "--seeds 0 is impossible")):
        assert main(["retrieval", *words]) == 2 and reason in capsys.readouterr().err
