"""Uses of a word in texts, each with the word's vector there."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bertjax.data.reader import Item
from bertjax.data.tokenizer.template import A
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.inference.engine import Vectors


class Use(NamedTuple):
    """One use of a word in a text."""

    text: int  # the text's number
    position: int  # of the word's first token, as `tokens_read` counts them
    vector_d: np.ndarray


def tokens_of_word(word: str, tokenizer: Tokenizer) -> list[list[str]]:
    """Returns the tokens of a word, at a text's beginning and after a space: where that is a part of them, they differ.

    Raises BertjaxError where it is empty, or the vocabulary has none for it.
    """
    tokens = tokenizer.split(word)
    if not tokens or not word.strip():
        raise BertjaxError(f"the word {word!r} is empty; give one that is in the texts")
    if tokenizer.unk in tokens:
        raise BertjaxError(f"the vocabulary has no tokens for {word!r}; give another word")
    return [tokens, tokenizer.split(f" {word}")]


def uses_of(needles: list[list[str]], items: Sequence[Item], vectors: Vectors, tokenizer: Tokenizer) -> Iterator[Use]:
    """Yields every use of a word, with the mean over its tokens.

    Args:
      needles: its tokens, some of these.
      items: the texts.
      vectors: of the tokens of each text, [t, hidden]; of a text that was shortened, those that are left.
      tokenizer: the model's.
    """
    template = tokenizer.template
    before, num_special = template.single.places.index(A), template.single.num_special
    of_words = (pieces.words for _, pieces in tokenizer.words_of([text for text, _ in items]))
    for number, ((text, _), words, vectors_td) in enumerate(zip(items, of_words, vectors, strict=True)):
        pieces = list(zip(tokenizer.split(text), words, strict=True))
        for start, end in _places(needles, template.shortened(pieces, len(vectors_td) - num_special)):
            yield Use(number, before + start, vectors_td[before + start : before + end].mean(axis=0))


def _places(needles: list[list[str]], pieces: list[tuple[str, int]]) -> Iterator[tuple[int, int]]:
    """Yields where a word's tokens begin and end in a text, if a word begins and ends there too.

    Args:
      needles: the tokens, some of these.
      pieces: those of the text, each with the number of its word.
    """
    tokens, words = [token for token, _ in pieces], [-1, *(word for _, word in pieces), -1]
    for start in range(len(pieces)):
        for end in sorted({start + len(needle) for needle in needles}):
            if tokens[start:end] in needles and words[start] != words[start + 1] and words[end] != words[end + 1]:
                yield start, end
