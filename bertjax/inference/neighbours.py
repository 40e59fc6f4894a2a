"""Uses of one word and how near they are to each other: what is around each, the cosines, and both as text."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bertjax.data.tokenizer.tokenizer import Tokenizer

_SIDE = 34  # characters shown before the word, and after it


class Context(NamedTuple):
    """A use of a word and the text around it."""

    before: str
    word: str
    after: str


def cosines(vectors_nd: np.ndarray) -> np.ndarray:
    """Returns the cosines between all vectors, [n, n]; those of a vector of zeros are 0."""
    lengths_n1 = np.linalg.norm(vectors_nd, axis=1, keepdims=True)
    units_nd = vectors_nd / np.where(lengths_n1 > 0, lengths_n1, 1)
    return units_nd @ units_nd.T


def contexts(word: str, texts: Sequence[str], numbers: Sequence[int]) -> list[Context]:
    """Returns each use of a word with the text around it.

    Args:
      word: the word; several words may be apart by any white space.
      texts: the texts in which it was found.
      numbers: for each use the number of its text, in order.

    Returns:
      one context for each use; where the text writes the word otherwise, it is empty but for `after`.
    """
    pattern = _pattern(word)
    places = {number: pattern.finditer(texts[number]) for number in numbers}
    found = []
    for number in numbers:
        text, match = texts[number], next(places[number], None)
        # A tokenizer may find what is written otherwise, as with an accent.
        start, end = match.span() if match else (0, 0)
        found.append(Context(_shortened(text[:start][::-1])[::-1], text[start:end], _shortened(text[end:])))
    return found


def first_known(words: Iterable[str], tokenizer: Tokenizer) -> str | None:
    """Returns the first of the words whose every token the vocabulary has; None where it lacks some of each."""
    for word in words:
        ids = tokenizer.ids(tokenizer.split(word))
        if ids and tokenizer.vocabulary.unk not in ids:
            return word
    return None


def replaced(word: str, other: str, text: str) -> str:
    """Returns the text with another word in the place of each use of a word, whatever its case."""
    return _pattern(word).sub(lambda _: other, text)


def _pattern(word: str) -> re.Pattern[str]:
    """The word by itself; several words may be apart by any white space."""
    return re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, word.split())) + r"(?!\w)", re.IGNORECASE)


def _shortened(text: str) -> str:
    text = re.sub(r"\s", " ", text)
    return text if len(text) <= _SIDE else f"{text[: _SIDE - 1].rstrip()}…"


def render(uses: Sequence[Context], cosines_nn: np.ndarray) -> str:
    """Returns the uses, numbered, and a table of the cosines between them."""
    width = max(len(use.before) for use in uses)
    lines = [f"{number:4}  {use.before:>{width}}{use.word}{use.after}" for number, use in enumerate(uses, 1)]
    header = " " * 4 + "".join(f"{number:8}" for number in range(1, len(uses) + 1))
    rows = (f"{n:4}" + "".join(f"{cosine:8.3f}" for cosine in row) for n, row in enumerate(cosines_nn, 1))
    return "\n".join([*lines, "", header, *rows])
