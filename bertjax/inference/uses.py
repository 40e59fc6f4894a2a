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


def tokens_of_word(word: str, tokenizer: Tokenizer) -> list[str]:
    """Returns the tokens of a word. Raises BertjaxError where it is empty, or the vocabulary has none for it."""
    tokens = tokenizer.split(word)
    if not tokens:
        raise BertjaxError(f"the word {word!r} is empty; give one that is in the texts")
    if tokenizer.unk in tokens:
        raise BertjaxError(f"the vocabulary has no tokens for {word!r}; give another word")
    return tokens


def uses_of(needle: list[str], items: Sequence[Item], vectors: Vectors, tokenizer: Tokenizer) -> Iterator[Use]:
    """Yields every use of a word, with the mean over its tokens.

    Args:
      needle: its tokens.
      items: the texts.
      vectors: of the tokens of each text, [t, hidden]; of a text that was shortened, those that are left.
      tokenizer: the model's.
    """
    template = tokenizer.template
    before, num_special = template.single.places.index(A), template.single.num_special
    for number, ((text, _), vectors_td) in enumerate(zip(items, vectors, strict=True)):
        for start in _places(needle, template.shortened(tokenizer.split(text), len(vectors_td) - num_special)):
            yield Use(number, before + start, vectors_td[before + start :][: len(needle)].mean(axis=0))


def _places(needle: list[str], words: list[str]) -> Iterator[int]:
    """Yields where a word's tokens start in a text, if the word ends there too."""
    for start in range(len(words) - len(needle) + 1):
        end = start + len(needle)
        if words[start:end] == needle and not (end < len(words) and words[end].startswith("##")):
            yield start
