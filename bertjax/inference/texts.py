"""Texts as people have them, and the rows of ids that a model reads of them."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from bertjax.data.batching.sequences import truncate
from bertjax.data.tokenizer.tokenizer import UNK, Tokenizer
from bertjax.errors import BertjaxError

Item = tuple[str, str | None]  # a text, and the second one of a pair
Text = str | tuple[str, str]


class Row(NamedTuple):
    """A text, or a pair of texts, as it is read."""

    ids: list[int]  # with special tokens
    len_a: int  # how many of them are segment A's


def as_items(texts: Text | Iterable[Text], pairs: str | Iterable[str] | None = None) -> list[Item]:
    """One item a text, in the order given.

    Args:
      texts: a string, or any iterable of strings and of pairs of them as tuples.
      pairs: one second text for each, where `texts` holds no tuples.

    Raises:
      BertjaxError: one is no text, or they are not as many.
    """
    items = [_as_item(text, number, "text") for number, text in enumerate(_listed(texts, "texts"))]
    if pairs is None:
        return items
    seconds = [_as_item(text, number, "pair") for number, text in enumerate(_listed(pairs, "pairs"))]
    if len(seconds) != len(items):
        raise BertjaxError(f"{len(items)} texts and {len(seconds)} pairs; give one pair for each text")
    for number, (_, second) in enumerate([*items, *seconds]):
        if second is not None:
            raise BertjaxError(f"text {number % len(items)} is a tuple, and pairs are given too; give one or the other")
    return [(first, second) for (first, _), (second, _) in zip(items, seconds, strict=True)]


def _listed(texts: Any, name: str) -> list[Any]:
    if isinstance(texts, str):
        return [texts]
    try:
        return list(texts)
    except TypeError:
        raise BertjaxError(f"{name} is of type {type(texts).__name__}; give a string or several of them") from None


def _as_item(text: Any, number: int, name: str) -> Item:
    if isinstance(text, str):
        return text, None
    if isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text):
        return text
    raise BertjaxError(f"{name} {number} is of type {type(text).__name__}; give a string, or a tuple of two strings")


class Reader:
    """Splits texts as in training and numbers their tokens; counts the words that the vocabulary lacks.

    Args:
      max_position: tokens that the model reads at most.
      shorten: cut what is longer, instead of an error.
    """

    def __init__(self, tokenizer: Tokenizer, max_position: int, *, shorten: bool):
        self._tokenizer, self._max_position, self._shorten = tokenizer, max_position, shorten
        self._texts, self._words, self._unknown = 0, 0, 0
        self._examples: dict[str, None] = {}

    def rows(self, items: Sequence[Item], name: Callable[[int], str]) -> list[Row]:
        """A row an item.

        Args:
          name: what to call an item in an error, by its number, counted from the reader's first on.

        Raises:
          BertjaxError: one is too long, or not Unicode.
        """
        splits = self._tokenizer.split_all([text for item in items for text in item if text is not None])
        words = iter(splits)
        rows = [
            self.row(next(words), None if second is None else next(words), functools.partial(name, number))
            for number, (_, second) in enumerate(items, self._texts)
        ]
        self._texts += len(items)
        return rows

    def row(self, words: Sequence[str], pair: Sequence[str] | None, name: Callable[[], str]) -> Row:
        """`<cls> words <sep>`, or `<cls> words <sep> pair <sep>`. Raises BertjaxError where that is too long."""
        cls, sep = self._tokenizer.vocabulary.cls, self._tokenizer.vocabulary.sep
        a, b = self._ids(words), None if pair is None else self._ids(pair)
        room = self._max_position - (2 if b is None else 3)
        if len(a) + len(b or []) > room:
            if not self._shorten:
                raise BertjaxError(
                    f"{name()} has {len(a) + len(b or [])} words, but only {room} fit beside special tokens in the "
                    f"model's {self._max_position} positions; shorten it, or have it shortened by truncate"
                )
            len_a, len_b = truncate(len(a), len(b or []), room)
            a, b = a[:len_a], None if b is None else b[:len_b]
        return Row([cls, *a, sep, *([] if b is None else [*b, sep])], len(a) + 2)

    def _ids(self, words: Sequence[str]) -> list[int]:
        ids, unk = self._tokenizer.ids(words), self._tokenizer.vocabulary.unk
        self._words += len(ids)
        if unk in ids:
            written = self._tokenizer.rules.special[UNK]
            lacking = [word for word, token in zip(words, ids, strict=True) if token == unk and word != written]
            self._unknown += len(lacking)
            if len(self._examples) < 5:
                self._examples = dict.fromkeys([*self._examples, *lacking])
        return ids

    @property
    def complaint(self) -> str | None:
        """What there is to say of words that the vocabulary lacks."""
        if not self._unknown:
            return None
        some = ", ".join(list(self._examples)[:5])
        count = f"{self._unknown:,} of {self._words:,} words"
        return f"read as <unk>, for the vocabulary lacks them: {count}, such as {some}"
