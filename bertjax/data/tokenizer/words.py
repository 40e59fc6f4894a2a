"""Words of a text, and the tokens that they are cut in."""

from typing import NamedTuple

from tokenizers import Encoding

from bertjax.data.tokenizer.marks import is_of_word


class Pieces(NamedTuple):
    """Tokens of a text, and of which word each is a piece, counted from 0; -1 where it is white space alone."""

    ids: list[int]
    words: list[int]


def words_of(text: str, read: Encoding, *, parted: bool) -> tuple[list[tuple[int, int]], Pieces]:
    """Returns the places of the words that tokens are pieces of, and these.

    Args:
      text: what was read.
      read: what the engine made of it.
      parted: whether punctuation is a word of its own, and a token may hold the space before it.
    """
    ends: dict[int | None, int] = {}  # a word of the engine's may be white space alone
    for word, (start, end) in zip(read.word_ids, read.offsets, strict=True):
        ends[word] = max(ends.get(word, 0), end if text[start:end].strip() else 0)
    spans: list[tuple[int, int]] = []
    words, last = [], None
    for word, (start, end) in zip(read.word_ids, read.offsets, strict=True):
        if not ends[word]:
            words.append(-1)
            continue
        start += len(text[start:end]) - len(text[start:end].lstrip())
        if word != last or (parted and spans[-1][1] <= start < end and _begins_word(text, start)):
            spans.append((start, end))
        spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        words.append(len(spans) - 1)
        last = word
    return spans, Pieces(read.ids, words)


def _begins_word(text: str, place: int) -> bool:
    before = text[place - 1 : place]
    return bool(before.strip()) and not (is_of_word(before) and is_of_word(text[place]))
