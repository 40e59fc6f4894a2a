"""Sentences of a long text are those of the whole, in whatever pieces it comes; each piece is looked at about once."""

import random
from collections.abc import Iterator

import pytest
import sentencex

from bertjax.data.sources.sentences import WINDOW, split_sentences

WORDS = "the crane flies over grey water and sees Dr. Fox it's U.S. 1.5 e.g. fish She".split()


def some_words(chance: random.Random, most: int) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(2, most)))


def prose(seed: int, marks: str = '""“”()', size: int = 5 * WINDOW) -> str:
    """Sentences, some of them with two more inside a quotation or a parenthesis."""
    chance, found = random.Random(seed), ""
    while len(found) < size:
        one, two, three = (f"{some_words(chance, 15).capitalize()}{chance.choice('...!?')}" for _ in range(3))
        pair = chance.randrange(0, len(marks), 2)
        inside = f"{some_words(chance, 4)} {marks[pair]}{two} {three}{marks[pair + 1]} {some_words(chance, 4)}."
        found += f"{one} " + f"{inside.capitalize()} " * (chance.random() < 0.3)
    return found


def cut(text: str, seed: int, longest: int) -> Iterator[str]:
    chance, at = random.Random(seed), 0
    while at < len(text):
        size = chance.randint(0, longest)
        yield text[at : at + size]
        at += size


@pytest.mark.parametrize("seed", range(8))
def test_they_are_those_of_the_whole_text(seed: int) -> None:
    text = prose(seed)
    found = list(split_sentences([text], "en"))
    assert found == [sentence.strip() for sentence in sentencex.segment("en", text.rstrip())]
    assert any(sentence.count(".") > 2 for sentence in found)  # the marks kept some together


@pytest.mark.parametrize("text", [prose(9), prose(9, marks="““"), prose(9, marks='"“()')], ids=["", "open", "crossed"])
def test_they_are_the_same_however_it_is_cut(text: str) -> None:
    whole = list(split_sentences([text], "en"))
    for longest in (1, 50, 3 * WINDOW):
        assert list(split_sentences(cut(text, longest, longest), "en")) == whole
    assert list(split_sentences(cut(text.replace(" ", "\n"), 0, 99), "en")) == whole


NASTY = {
    "one sentence": "word and ",
    "one word": "a",
    "never closed": "“ x y. ",
    "opened at every word": '"x (y “z. ',
    "among spaces": 'x " y . ',
    "initials": "A. B. ",
    "closed": "He is (a fox). ",
}


@pytest.mark.parametrize("unit", NASTY.values(), ids=NASTY)
def test_each_character_is_looked_at_about_once(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, sizes = unit * (10 * WINDOW // len(unit)), list[int]()

    def counted(language: str, text: str, segment=sentencex.segment) -> list[str]:
        sizes.append(len(text))
        return segment(language, text)

    monkeypatch.setattr("sentencex.segment", counted)
    found = list(split_sentences([text], "en"))
    assert max(sizes) <= WINDOW and sum(sizes) < 2.2 * len(text)
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    assert max(map(len, found)) <= WINDOW


def test_what_has_no_end_is_cut_between_words() -> None:
    text = " ".join(f"word{number}" for number in range(WINDOW))
    found = list(split_sentences([text], "en"))
    assert len(found) < 15 and " ".join(found) == text


def test_nothing_is_no_sentence() -> None:
    assert list(filter(None, split_sentences([], "en"))) == list(filter(None, split_sentences(["\n"], "en"))) == []
