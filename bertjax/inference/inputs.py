"""Texts as users give them, and the token ids that a model reads of each."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from bertjax.data.batching import sequences
from bertjax.data.tokenizer.tokenizer import UNK, Tokenizer
from bertjax.errors import BertjaxError

Item = tuple[str, str | None]  # a text, and the second one of a pair
Text = str | tuple[str, str]

_EXAMPLES = 5  # unknown words that a warning names


class TokenIds(NamedTuple):
    """Token ids of a text, or of a pair of texts, as the model reads them."""

    ids: list[int]  # with special tokens
    len_a: int  # how many of them are segment A's


def as_items(texts: Text | Iterable[Text], pairs: str | Iterable[str] | None = None) -> list[Item]:
    """Returns one item a text, in the order given.

    Args:
      texts: a string, or any iterable of strings and of pairs of them as tuples.
      pairs: a second text for each text, where `texts` holds no tuples.

    Raises:
      BertjaxError: something is not a text, or the numbers of texts and pairs differ.
    """
    items = [_as_item(text, number, "text") for number, text in enumerate(_as_list(texts, "texts"))]
    if pairs is None:
        return items
    seconds = [_as_item(text, number, "pair") for number, text in enumerate(_as_list(pairs, "pairs"))]
    if len(seconds) != len(items):
        raise BertjaxError(f"{len(items)} texts and {len(seconds)} pairs; give one pair for each text")
    for number, (_, second) in enumerate([*items, *seconds]):
        if second is not None:
            raise BertjaxError(f"text {number % len(items)} is a tuple, and pairs are given too; give one or the other")
    return [(first, second) for (first, _), (second, _) in zip(items, seconds, strict=True)]


def _as_list(texts: Any, name: str) -> list[Any]:
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
    """Turns texts into token ids as in training, and counts the words that the vocabulary lacks.

    Args:
      tokenizer: the model's.
      max_position: tokens that the model can read of a text, special ones included.
      truncate: shorten what is longer, instead of an error.
    """

    def __init__(self, tokenizer: Tokenizer, max_position: int, *, truncate: bool):
        self._tokenizer, self._max_position, self._truncate = tokenizer, max_position, truncate
        self._num_texts, self._num_words, self._num_unknown = 0, 0, 0
        self._examples: dict[str, None] = {}  # unknown words in the order in which they came

    def read_all(self, items: Sequence[Item], name: Callable[[int], str]) -> list[TokenIds]:
        """Returns the token ids of each item.

        Args:
          items: texts and pairs.
          name: what an error calls an item, by its number, counted from the reader's first item on.

        Raises:
          BertjaxError: an item is too long, or is not Unicode.
        """
        splits = self._tokenizer.split_all([text for item in items for text in item if text is not None])
        words = iter(splits)
        read = [
            self.read(next(words), None if second is None else next(words), functools.partial(name, number))
            for number, (_, second) in enumerate(items, self._num_texts)
        ]
        self._num_texts += len(items)
        return read

    def read(self, words: Sequence[str], pair: Sequence[str] | None, name: Callable[[], str]) -> TokenIds:
        """Returns the ids of `<cls> words <sep>`, or of `<cls> words <sep> pair <sep>`.

        Args:
          words: the text, split as the tokenizer splits.
          pair: the second text likewise, if there is one.
          name: what an error calls the text.

        Raises:
          BertjaxError: they are too long.
        """
        cls, sep = self._tokenizer.vocabulary.cls, self._tokenizer.vocabulary.sep
        a, b = self._ids(words), None if pair is None else self._ids(pair)
        room = self._max_position - (2 if b is None else 3)
        if len(a) + len(b or []) > room:
            if not self._truncate:
                raise BertjaxError(
                    f"{name()} has {len(a) + len(b or [])} words, but only {room} fit beside special tokens in the "
                    f"model's {self._max_position} positions; shorten it, or have it shortened by truncate"
                )
            len_a, len_b = sequences.truncate(len(a), len(b or []), room)
            a, b = a[:len_a], None if b is None else b[:len_b]
        return TokenIds([cls, *a, sep, *([] if b is None else [*b, sep])], len(a) + 2)

    def _ids(self, words: Sequence[str]) -> list[int]:
        ids, unk = self._tokenizer.ids(words), self._tokenizer.vocabulary.unk
        self._num_words += len(ids)
        if unk in ids:
            unk_token = self._tokenizer.rules.special[UNK]  # which a text may hold itself
            unknown = [word for word, token in zip(words, ids, strict=True) if token == unk and word != unk_token]
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
        return f"read as <unk>, for the vocabulary lacks them: {count}, such as {some}"
