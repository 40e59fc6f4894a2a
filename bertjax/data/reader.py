"""Texts to the token ids that a model reads of each."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from bertjax.data.batching import sequences
from bertjax.data.tokenizer.template import A, B
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

Item = tuple[str, str | None]  # a text, and the second one of a pair

T = TypeVar("T", str, list[str])
_EXAMPLES = 5  # unknown words that a warning names
_CHARACTERS_A_TOKEN = 8  # of a text that is too long: with fewer it might have to be split again
_OF_A_PAIR = 1 << 20  # characters of a text of a pair, by which the longer one is told
_AT_A_CUT = 128  # tokens that a cut through a text may change: pieces of a word, which has 100 characters at most


class TooLong(BertjaxError):
    """A text has more tokens than may be read."""


class TokenIds(NamedTuple):
    """Token ids of a text, or of a pair of texts, as the model reads them."""

    ids: list[int]  # with special tokens
    len_a: int  # how many of them are segment A's


class _Enough(NamedTuple):
    """Tokens of a text."""

    words: list[str]
    more: bool  # than these are in it


class Reader:
    """Turns texts into token ids as in training, and counts the words that the vocabulary lacks.

    Args:
      tokenizer: the model's.
      max_length: tokens that are read of a text, special ones included.
      truncate: shorten what is longer, instead of an error.
      limit: what an error calls so many tokens.

    Attributes:
      num_shortened: texts and pairs that were.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_length: int, *, truncate: bool, limit: str = "the model's {} positions"
    ):
        self._tokenizer, self._max_length, self._truncate = tokenizer, max_length, truncate
        self._limit = limit.format(max_length)
        self._num_texts, self._num_words, self._num_unknown, self.num_shortened = 0, 0, 0, 0
        self._examples: dict[str, None] = {}  # unknown words in the order in which they came

    def read_all(self, items: Sequence[Item], name: Callable[[int], str]) -> list[TokenIds]:
        """Returns the token ids of each item.

        Args:
          items: texts and pairs.
          name: what an error calls an item, by its number, counted from the reader's first item on.

        Raises:
          TooLong: an item is too long.
        """
        parts = [[first] if second is None else [first, second] for first, second in items]
        most = _CHARACTERS_A_TOKEN * (self._max_length + _AT_A_CUT)
        # Which text of a pair is longer decides what is read of both.
        limits = [most if len(of_item) == 1 else max(most, _OF_A_PAIR) for of_item in parts]
        kept = [self._kept(text, limit) for of_item, limit in zip(parts, limits, strict=True) for text in of_item]
        splits, read = iter(self._tokenizer.split_all(kept)), []
        for number, (of_item, limit) in enumerate(zip(parts, limits, strict=True), self._num_texts):
            enough = [self._enough(text, next(splits), limit) for text in of_item]
            words, pair = enough[0].words, enough[1].words if len(enough) > 1 else None
            more = any(of_text.more for of_text in enough)
            read.append(self.read(words, pair, functools.partial(name, number), more=more))
        self._num_texts += len(items)
        return read

    def _kept(self, text: T, length: int) -> T:
        """Returns the end of what is too long that is read of it."""
        return text[-length:] if self._tokenizer.template.keep_end else text[:length]

    def _enough(self, text: str, words: list[str], num_characters: int) -> "_Enough":
        """Returns all tokens of a text, or of a long one more than can be read: of megabytes all would take minutes.

        A word that is cut through may have other tokens than the whole one; so those beside the cut are left out.

        Args:
          words: the tokens of its first `num_characters`, or of its last ones where the end is read.
        """
        while len(text) > num_characters:
            if len(words) > self._max_length + _AT_A_CUT:
                return _Enough(self._kept(words, len(words) - _AT_A_CUT), True)
            num_characters *= 4  # its words are long, or it is white space
            (words,) = self._tokenizer.split_all([self._kept(text, num_characters)])
        return _Enough(words, False)

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
          TooLong: they are too long.
          BertjaxError: there are none, and the template has no special tokens.
        """
        template = self._tokenizer.template
        frame = template.single if pair is None else template.pair
        a, b = self._ids(words), self._ids(pair or ())
        room = self._max_length - frame.num_special
        if len(a) + len(b) > room:
            if not self._truncate:
                count = f"more than {len(a)}" if more else f"{len(a) + len(b)}"
                raise TooLong(
                    f"{name()} has {count} words, but only {room} fit beside special tokens in "
                    f"{self._limit}; shorten it, or have it shortened by truncate"
                )
            self.num_shortened += 1
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
