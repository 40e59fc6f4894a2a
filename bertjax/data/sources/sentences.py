"""Sentences of a text of any length, found in windows: in time that grows with it, and memory that does not."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial

WINDOW = 4096  # characters that the rules see at once; with more their time grows faster than the text
_AHEAD = 32  # characters after a sentence that its end depends on, at most
_OPENING = (" “", " „", " «", " (", "「", "『", "《")
_CLOSING = "”“»)」』》"

Rules = Callable[[str], list[str]]  # cut a text into sentences, with the white space after each


def split_sentences(pieces: Iterable[str], language: str) -> Iterator[str]:
    """Yields the sentences of a text, stripped: the same ones in whatever pieces it comes.

    They are what the rules find in the whole text, but that none is longer than `WINDOW`, and that a quotation mark
    without a partner, which in the whole text could turn all others inside out, does so in its window alone.

    Args:
      pieces: of the text; a line's last one ends with a line feed.
      language: by whose rules it is split, a two-letter code.
    """
    from sentencex import segment

    rules = partial(segment, language)
    text, at = "", 0
    for piece in pieces:
        if at:
            text, at = text[at:], 0
        text += piece.replace("\n", " ")
        while len(text) - at >= WINDOW:
            for sentence in _settled(text[at : at + WINDOW], rules):
                at += len(sentence)
                yield sentence.strip()
    yield from (sentence.strip() for sentence in rules(text[at:].rstrip()))


def _settled(window: str, rules: Rules) -> list[str]:
    """Returns the first sentences of a window, one at least: those that nothing after the window could change."""
    for end in (_unclosed(window), len(window)):
        sentences = rules(window[:end])
        stops = itertools.accumulate(map(len, sentences))
        if settled := [one for one, stop in zip(sentences, stops, strict=True) if stop <= end - _AHEAD]:
            return settled
    return [window[: window.rfind(" ") + 1] or window]


def _unclosed(window: str) -> int:
    """Returns where the first quotation or parenthesis begins that is not closed; where all are, the end."""
    pairs = zip(_OPENING, _CLOSING, strict=True)
    found = [window.find(opening, window.rfind(closing) + 1) for opening, closing in pairs]
    last = window.rfind('"')  # opens if a word stands close behind it, and among spaces if it is an odd one
    if window[last - 1 : last] == " " and (window[last + 1 : last + 2] != " " or window.count('"') % 2):
        found.append(last)
    return min((at for at in found if at >= 0), default=len(window))
