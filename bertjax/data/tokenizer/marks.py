"""Tokens as a reader sees them, whatever their vocabulary has to mark where a word begins or goes on."""

import unicodedata
from collections.abc import Iterable
from typing import Literal

Kind = Literal["word", "wordpiece", "bpe", "unigram"]

INSIDE = "##"  # before a piece of "wordpiece" that does not begin a word
SPACE = "\u2581"  # a space in pieces of "unigram"


def _letters() -> dict[str, bytes]:
    """The byte that each letter of byte-level BPE stands for (Radford et al. 2019, "GPT-2")."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): bytes([byte]) for byte in shown} | {chr(256 + n): bytes([b]) for n, b in enumerate(hidden)}


_LETTERS = _letters()
_OF_BYTES = {byte[0]: letter for letter, byte in _LETTERS.items()}


def plain(token: str, kind: Kind) -> str:
    """Returns the text of a token, with the space before it if it has one; "\ufffd" for half a character."""
    if kind == "bpe":
        return _bytes(token).decode("utf-8", "replace")
    return token.replace(SPACE, " ") if kind == "unigram" else token


def marked(text: str, kind: Kind) -> str:
    """Returns a text as a token of "bpe" or "unigram" has it: what `plain` makes a text of."""
    return "".join(_OF_BYTES[byte] for byte in text.encode()) if kind == "bpe" else text.replace(" ", SPACE)


def joined(tokens: Iterable[str], kind: Kind) -> str:
    """Returns tokens as a text, as far as they tell it."""
    if kind == "bpe":
        return b"".join(map(_bytes, tokens)).decode("utf-8", "replace").strip()
    if kind == "unigram":
        return "".join(tokens).replace(SPACE, " ").strip()
    return " ".join(tokens).replace(f" {INSIDE}", "")


def goes_on(token: str, kind: Kind) -> bool:
    """Returns whether a token goes on with the word of the token before.

    Where spaces are parts of tokens, one without it does, unless it begins as no word can: with punctuation.
    """
    if kind == "wordpiece":
        return token.startswith(INSIDE)
    return kind != "word" and is_of_word(plain(token, kind)[:1] or " ")


def is_of_word(letter: str) -> bool:
    """Returns whether a character is part of a word, as white space and punctuation are not."""
    return letter.isalnum() or letter == "\ufffd" or unicodedata.category(letter)[0] == "M"


def _bytes(token: str) -> bytes:
    return b"".join(_LETTERS.get(letter) or letter.encode("utf-8", "replace") for letter in token)
