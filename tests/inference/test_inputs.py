"""Texts as people have them, read as the model reads them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusal

from bertjax.data.reader import Reader
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.inference.inputs import as_items, as_text, as_words

WORDS = "a crane is flying"


def reader(*, truncate: bool = False) -> Reader:
    return Reader(Tokenizer.train([WORDS], min_frequency=1), 8, truncate=truncate)


def test_items() -> None:
    assert as_items("a") == [("a", None)] and as_items([]) == []
    assert as_items(iter(["a", ("b", "")])) == [("a", None), ("b", "")]
    assert as_items(["a", "b"], iter(["c", ""])) == [("a", "c"), ("b", "")]


def test_a_tuple_is_a_pair_wherever_it_stands() -> None:
    assert as_items(("a", "b")) == as_items([("a", "b")]) == as_items("a", "b") == [("a", "b")]
    for several in (("a",), ("a", "b", "c"), (("a", "b"), ("c", "d"))):
        told = "text 0 is of type tuple; give a string, or a tuple of two strings for a pair"
        assert refusal(as_items, several) == told
    assert "text 0 is a pair by itself, and pairs are given too" in refusal(as_items, ("a", "b"), ["c", "d"])


class Column:
    """What pandas has: no list of Python's, but one string after the other."""

    def __init__(self, *values: Any):
        self.values = values

    def __iter__(self) -> Any:
        return iter(self.values)


class Table:
    """What pandas and others have: its elements are the names of its columns, or its rows."""

    @property
    def columns(self) -> list[str]:
        raise AssertionError("not asked for: some compute them")

    def __iter__(self) -> Any:
        return iter(["a", "b"])


def test_texts_come_from_arrays_columns_and_generators() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    for several in (
        np.array(["a", "b"]),
        np.array(["a", "b"], object),
        np.array(["a", "b"], np.dtypes.StringDType()),
        [np.str_("a"), np.str_("b")],
        Column("a", "b"),
        (letter for letter in "ab"),
        {"a": 1, "b": 2}.keys(),
        pyarrow.array(["a", "b"]),
        pyarrow.chunked_array([["a"], ["b"]]),
    ):
        items = as_items(several)
        assert items == [("a", None), ("b", None)] and {type(first) for first, _ in items} == {str}
    assert as_items(np.str_("a")) == as_items(np.array("a")) == [("a", None)]
    assert as_words(np.array(["a", "b"]), "tokens") == as_words(("a", "b"), "tokens") == ["a", "b"]


@pytest.mark.parametrize(
    "texts, told",
    [
        (b"ab", "texts is of type bytes; decode it first"),
        ([b"ab"], "text 0 is of type bytes; decode it first"),
        (np.array([b"ab"]), "text 0 is of type bytes; decode it first"),
        (Path("lines.txt"), "; read the file first"),
        ({"a": 1}, "texts is of type dict; give a list of its values, or of its keys"),
        ({"a"}, "texts is of type set; give a list, for a set has no order"),
        (Table(), "texts is of type Table; give one of its columns"),
        (["a", None], "text 1 is of type NoneType; give a string, '' where one is missing"),
        (["a", float("nan")], "text 1 is of type float; give a string, '' where one is missing"),
        (np.ma.array(["a", "b"], mask=[False, True]), "text 1 is of type NoneType"),
        (7, "texts is of type int; give a string or a list of them"),
        (["a", 7], "text 1 is of type int; give a string, or a tuple of two strings for a pair"),
        ([["a", "b"]], "text 0 is of type list; give a string, or a tuple of two strings for a pair"),
        (np.array([["a", "b"]]), "text 0 is of type list"),
        (iter(["a", ("a", 7)]), "text 1 is of type tuple; give a string, or a tuple of two strings for a pair"),
        (["a", "b\ud800c"], "text 1 holds half a character, a lone surrogate, in 'b\\ud800c'; give UTF-8"),
        (["a", ("b", "\udfff")], "the pair of text 1 holds half a character"),
    ],
)
def test_what_is_no_text_is_told_with_its_number(texts: Any, told: str) -> None:
    assert told in refusal(as_items, texts)


def test_what_is_no_word_is_told_with_its_number() -> None:
    assert refusal(as_words, "a b", "tokens").startswith("tokens is text, and a list of words is needed; split it")
    assert refusal(as_words, ["a", 7], "pair") == "word 1 of pair is of type int; give a string"
    assert refusal(as_words, [["a"]], "tokens") == "word 0 of tokens is of type list; give a string"
    assert refusal(as_text, ["a"], "the text") == "the text is of type list; give a string"


def test_rows_and_their_segments() -> None:
    ids = dict(zip(WORDS.split(), reader()._tokenizer.ids(WORDS.split()), strict=True))
    one, pair, empty = reader().read_all([("A crane", None), ("is", "a"), ("", "")], str)
    assert one == ([2, ids["a"], ids["crane"], 3], 4)
    assert pair == ([2, ids["is"], 3, ids["a"], 3], 3)
    assert empty == ([2, 3, 3], 2)


def test_texts_are_numbered_from_the_first_call_on() -> None:
    ours = reader()
    ours.read_all([("a", None), ("a", None)], "text {}".format)
    with pytest.raises(BertjaxError, match="^text 3 has 7 words, but only 6 fit"):
        ours.read_all([("a", None), ("a " * 7, None)], "text {}".format)
    read = reader(truncate=True).read_all([("a " * 7, None), ("a " * 7, "a " * 7)], str)
    assert [len(text.ids) for text in read] == [8, 8]


def test_unknown_words_are_counted_over_all_calls() -> None:
    ours = reader()
    assert ours.unknown_words is None
    ours.read_all([("a zebra <unk>", None)], str)
    ours.read_all([("zebra gnu", "b c d")], str)
    said = "read as <unk>, for the vocabulary lacks them: 6 of 8 words, such as zebra, gnu, b, c, d"
    assert ours.unknown_words == said


PIECES = ["a", "crane", "fly", "##ing", "x", "##x", "##xx", ".", "鹤", "飞", "ж", "é", "##é"]
ODD = [
    "crane",
    "flying",
    "xxxxx",
    "x" * 90,
    "x" * 101,
    "x" * 700,
    ".",
    "...",
    "鹤飞",
    "ж",
    "é",
    "e\u0301",
    " " * 300,
    "[MASK]",
    "\t",
]


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
@pytest.mark.parametrize("keep_end", [False, True], ids=["beginning", "end"])
def test_of_a_long_text_no_more_is_split_than_is_read(
    kind: Any, keep_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is read is what it would be if all were: wherever the cut falls."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(ODD) + " " * (rng.random() < 0.7) for _ in range(700)) for _ in range(30)]
    texts += ["鹤" * 9000, "x" * 9000, " " * 9000, "x" * 9000 + " crane" * 999, "crane " * 999 + "x" * 9000, "a crane"]
    tokens = {token: number for number, token in enumerate([*BERTS_SPECIAL_TOKENS, *PIECES])}
    tokenizer = Tokenizer.from_vocab(tokens, Rules(kind, special=BERTS_SPECIAL_TOKENS))
    tokenizer = tokenizer.with_template(tokenizer.template._replace(keep_end=keep_end))
    whole = Reader(tokenizer, 20, truncate=True)
    expected = [whole.read(words, None, str) for words in tokenizer.split_all(texts)]
    longest = []
    split_all = tokenizer.split_all
    monkeypatch.setattr(tokenizer, "split_all", lambda some: longest.append(max(map(len, some))) or split_all(some))
    assert Reader(tokenizer, 20, truncate=True).read_all(as_items(texts), str) == expected
    longest.clear()
    Reader(tokenizer, 20, truncate=True).read_all(as_items(["crane " * 300_000, "鹤 " * 300_000]), str)
    assert max(longest) < 2000
    pair = ("crane " * 4000, "fly " * 4001)  # of a pair the longer one has the odd token
    (ids,) = Reader(tokenizer, 20, truncate=True).read_all([pair], str)
    assert ids == whole.read(*map(tokenizer.split, pair), str)
    longest.clear()
    Reader(tokenizer, 20, truncate=True).read_all([("crane " * 300_000, "fly " * 300_000)], str)
    assert max(longest) == 1 << 20
    monkeypatch.setattr("bertjax.data.reader._OF_A_PAIR", 0)
    pairs = [("a crane", text) for text in texts] + [(text, "a crane") for text in texts]
    expected = [whole.read(*map(tokenizer.split, pair), str) for pair in pairs]
    longest.clear()
    assert Reader(tokenizer, 20, truncate=True).read_all(as_items(pairs), str) == expected
    assert "more than " in refusal(Reader(tokenizer, 20, truncate=False).read_all, [("a", "crane " * 9999)], str)


def test_a_long_text_is_refused_by_its_beginning() -> None:
    told = refusal(reader().read_all, as_items("a crane " * 10**5), lambda _: "line 3")
    assert re.fullmatch(r"line 3 has more than \d{3} words, but only 6 fit beside special tokens in .*", told)
    assert "has 400 words" in refusal(reader().read_all, as_items("a " * 400), str)
