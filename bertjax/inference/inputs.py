"""Texts as users give them."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from bertjax.data.reader import Item
from bertjax.errors import BertjaxError

Text = str | tuple[str, str]  # as users give them


def as_items(
    texts: Text | Iterable[Text],
    pairs: str | Iterable[str] | None = None,
    *,
    name: Callable[[int], str] = "text {}".format,
    first: int = 0,
) -> list[Item]:
    """Returns one item a text, in the order given. Texts of every public call are read here.

    Args:
      texts: a string, a pair of them as a tuple, or several of these in anything that has an order but a tuple: a list,
        an array, a column of a table, a generator.
      pairs: a second text for each text, where `texts` holds no tuples.
      name: what an error calls a text, by its number.
      first: the number of the first text.

    Raises:
      BertjaxError: something is not a text, or the numbers of texts and pairs differ.
    """
    several = [texts] if isinstance(texts, tuple) else elements(texts, "texts")
    items = [_as_item(text, name(number)) for number, text in enumerate(several, first)]
    if pairs is None:
        return items
    seconds = [as_text(text, f"pair {number}") for number, text in enumerate(elements(pairs, "pairs"))]
    for number, (_, second) in enumerate(items, first):
        if second is not None:
            raise BertjaxError(f"{name(number)} is a pair by itself, and pairs are given too; give one or the other")
    if len(seconds) != len(items):
        raise BertjaxError(f"{len(items)} texts and {len(seconds)} pairs; give one pair for each text")
    return [(first, second) for (first, _), second in zip(items, seconds, strict=True)]


def as_words(words: Iterable[str], name: str) -> list[str]:
    """Returns the words of one text. Raises BertjaxError where they are not split, or something is no word."""
    if isinstance(words, str):
        raise BertjaxError(f"{name} is text, and a list of words is needed; split it, or give it to encode")
    return [
        as_text(word, f"word {number} of {name}")
        for number, word in enumerate(elements(words, name, "a list of words"))
    ]


def as_text(text: str, name: str) -> str:
    """Returns one text as a plain string. Raises BertjaxError where it is something else, or not Unicode."""
    if not isinstance(text, str):
        raise _no_text(text, name, "a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.start + 20]
        raise BertjaxError(f"{name} holds half a character, a lone surrogate, in {around!r}; give UTF-8") from None
    return str.__str__(text)  # numpy has strings of its own


def _as_item(text: Any, name: str) -> Item:
    if isinstance(text, str):
        return as_text(text, name), None
    if isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text):
        return as_text(text[0], name), as_text(text[1], f"the pair of {name}")
    raise _no_text(text, name, "a string, or a tuple of two strings for a pair")


def elements(value: Any, name: str, wanted: str = "a string or a list of them") -> Iterable[Any]:
    """Returns what may be texts one by one; a single one by itself. Raises BertjaxError where there are none."""
    # The elements of a table are the names of its columns, those of a mapping its keys: texts, but hardly those meant.
    if _is_table(value) or isinstance(value, bytes | bytearray | os.PathLike | Mapping | set | frozenset):
        raise _no_text(value, name, wanted)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif hasattr(value, "to_pylist"):  # pyarrow's, whose elements are no strings
        value = value.to_pylist()
    if isinstance(value, str):
        return [value]
    try:
        return iter(value)
    except TypeError:
        raise _no_text(value, name, wanted) from None


def _is_table(value: Any) -> bool:
    """Returns whether it is a table as pandas, polars, pyarrow or datasets have it; some compute what is asked for."""
    return hasattr(type(value), "columns") or hasattr(type(value), "column_names")


_REMEDIES: tuple[tuple[Any, str], ...] = (
    (bytes | bytearray, "decode it first"),
    (os.PathLike, "read the file first"),
    (Mapping, "give a list of its values, or of its keys"),
    (set | frozenset, "give a list, for a set has no order"),
    (float | None, "give a string, '' where one is missing"),
)


def _no_text(value: Any, name: str, wanted: str) -> BertjaxError:
    """Makes the error that says what was given, and what is needed instead."""
    remedy = next((remedy for kind, remedy in _REMEDIES if isinstance(value, kind)), f"give {wanted}")
    if _is_table(value):
        remedy = "give one of its columns"
    return BertjaxError(f"{name} is of type {type(value).__name__}; {remedy}")
