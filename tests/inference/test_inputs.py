"""Texts as people have them, read as the model reads them."""

import pytest

from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.inference.inputs import Reader, as_items

WORDS = "a crane is flying"


def reader(*, truncate: bool = False) -> Reader:
    return Reader(Tokenizer.train([WORDS], min_frequency=1), 8, truncate=truncate)


def test_items() -> None:
    assert as_items("a") == [("a", None)] and as_items([]) == []
    assert as_items(iter(["a", ("b", "")])) == [("a", None), ("b", "")]
    assert as_items(("a", "b"), iter(["c", ""])) == [("a", "c"), ("b", "")]  # two texts: a pair is inside


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
