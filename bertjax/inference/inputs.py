"""Texts as users give them, and the token ids that a model reads of each."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bertjax.data.batching import sequences
from bertjax.data.tokenizer.template import A, B
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

Item = tuple[str, str | None]  # a text, and the second one of a pair
Text = str | tuple[str, str]  # as users give them

T = TypeVar("T", str, list[str])
_EXAMPLES = 5  # unknown words that a warning names
_CHARACTERS_A_TOKEN = 8  # of a text that is too long: with fewer it might have to be split again
_AT_A_CUT = 128  # tokens that a cut through a text may change: pieces of a word, which has 100 characters at most


class TokenIds(NamedTuple):
    """Token ids of a text, or of a pair of texts, as the model reads them."""

    ids: list[int]  # with special tokens
    len_a: int  # how many of them are segment A's


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


class Reader:
    """Turns texts into token ids as in training, and counts the words that the vocabulary lacks.

    Args:
      tokenizer: the model's.
      max_length: tokens that are read of a text, special ones included.
      truncate: shorten what is longer, instead of an error.
      limit: what an error calls so many tokens.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_length: int, *, truncate: bool, limit: str = "the model's {} positions"
    ):
        self._tokenizer, self._max_length, self._truncate = tokenizer, max_length, truncate
        self._limit = limit.format(max_length)
        self._num_texts, self._num_words, self._num_unknown = 0, 0, 0
        self._examples: dict[str, None] = {}  # unknown words in the order in which they came

    def read_all(self, items: Sequence[Item], name: Callable[[int], str]) -> list[TokenIds]:
        """Returns the token ids of each item.

        Args:
          items: texts and pairs.
          name: what an error calls an item, by its number, counted from the reader's first item on.

        Raises:
          BertjaxError: an item is too long.
        """
        most = _CHARACTERS_A_TOKEN * (self._max_length + _AT_A_CUT)
        texts = [(self._kept(first, most),) if second is None else (first, second) for first, second in items]
        splits = iter(self._tokenizer.split_all(list(itertools.chain.from_iterable(texts))))
        read = []
        for number, (first, second) in enumerate(items, self._num_texts):
            words, pair = next(splits), None if second is None else next(splits)
            more = second is None and len(first) > most
            if more:
                words, more = self._enough(first, words, most)
            read.append(self.read(words, pair, functools.partial(name, number), more=more))
        self._num_texts += len(items)
        return read

    def _kept(self, text: T, length: int) -> T:
        """Returns the end of what is too long that is read of it."""
        return text[-length:] if self._tokenizer.template.keep_end else text[:length]

    def _enough(self, text: str, words: list[str], num_characters: int) -> tuple[list[str], bool]:
        """Returns more tokens of a long text than can be read of it, but not all: of megabytes that would take minutes.

        A word that is cut through may have other tokens than the whole one; so those beside the cut are left out.

        Args:
          words: the tokens of its first `num_characters`, or of its last ones where the end is read.

        Returns:
          the tokens, and whether the text has more.
        """
        while len(words) <= self._max_length + _AT_A_CUT:  # its words are long, or it is white space
            num_characters *= 4
            (words,) = self._tokenizer.split_all([self._kept(text, num_characters)])
            if num_characters >= len(text):
                return words, False
        return self._kept(words, len(words) - _AT_A_CUT), True

    def read(
        self, words: Sequence[str], pair: Sequence[str] | None, name: Callable[[], str], *, more: bool = False
    ) -> TokenIds:
        """Returns the ids of `<cls> words <sep>`, or of `<cls> words <sep> pair <sep>`, as the template has it.

        Args:
          words: the text, split as the tokenizer splits.
          pair: the second text likewise, if there is one.
          name: what an error calls the text.
          more: the text has more words than these.

        Raises:
          BertjaxError: they are too long, or there are none and the template has no special tokens.
        """
        template = self._tokenizer.template
        frame = template.single if pair is None else template.pair
        a, b = self._ids(words), self._ids(pair or ())
        room = self._max_length - frame.num_special
        if len(a) + len(b) > room:
            if not self._truncate:
                count = f"more than {len(a)}" if more else f"{len(a) + len(b)}"
                raise BertjaxError(
                    f"{name()} has {count} words, but only {room} fit beside special tokens in "
                    f"{self._limit}; shorten it, or have it shortened by truncate"
                )
            # In other tools too the longer one keeps the odd token, and of equally long ones the second.
            if len(a) > len(b):
                len_a, len_b = sequences.truncate(len(a), len(b), room)
            else:
                len_b, len_a = sequences.truncate(len(b), len(a), room)
            a, b = template.shortened(a, len_a), template.shortened(b, len_b)
        parts = [a if place == A else b if place == B else [place] for place in frame.places]
        if not (ids := list(itertools.chain.from_iterable(parts))):
            raise BertjaxError(f"{name()} has no tokens, and this model has no special ones around it; leave it out")
        return TokenIds(ids, sum(map(len, parts[: frame.num_first])))

    def _ids(self, words: Sequence[str]) -> list[int]:
        ids, unk = self._tokenizer.ids(words), self._tokenizer.vocabulary.unk
        self._num_words += len(ids)
        if unk in ids:
            # A text may hold the unknown token itself.
            unknown = [
                word for word, token in zip(words, ids, strict=True) if token == unk and word != self._tokenizer.unk
            ]
            self._num_unknown += len(unknown)
            if len(self._examples) < _EXAMPLES:
                self._examples = dict.fromkeys([*self._examples, *unknown])
        return ids

    @property
    def unknown_words(self) -> str | None:
        """A message that counts the words which the vocabulary lacks and names some; None where there are none."""
        if not self._num_unknown:
            return None
        some = ", ".join(list(self._examples)[:_EXAMPLES])
        count = f"{self._num_unknown:,} of {self._num_words:,} words"
        return f"read as {self._tokenizer.unk}, for the vocabulary lacks them: {count}, such as {some}"
