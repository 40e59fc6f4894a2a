"""Words that are given one by one, and words of a text: pieces, and places."""

import pytest

from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.data.tokenizer.words import Pieces
from bertjax.errors import BertjaxError

PIECES = Tokenizer.from_vocab(
    {
        token: number
        for number, token in enumerate([*BERTS_SPECIAL_TOKENS, "paris", "u", ".", "s", "un", "##der", "我"])
    },
    Rules("wordpiece", special=BERTS_SPECIAL_TOKENS),
)
WORDS = Tokenizer.train(["paris united states"], min_frequency=1)


def test_each_word_is_read_by_itself() -> None:
    words = ["Under", "U.S.", "\u200b", "", "[SEP]", "zz", "Paris u"]
    (pieces,) = PIECES.encode_words([words])
    assert PIECES.tokens(pieces.ids) == "un ##der u . s . [SEP] [UNK] paris u".split()
    assert pieces.words == [0, 0, 1, 1, 1, 1, 4, 5, 6, 6]
    (pieces,) = WORDS.encode_words([["Paris", "none", "", "united  states", "<cls>"]])
    assert WORDS.tokens(pieces.ids) == "paris <unk> united states <cls>".split() and pieces.words == [0, 1, 3, 3, 4]
    assert PIECES.encode_words([[], ["paris"]]) == [Pieces([], []), Pieces([5], [0])] and WORDS.encode_words([]) == []


@pytest.mark.parametrize(
    "tokenizer, words",
    [(PIECES, "Under U . S . [SEP] 我 我 pári\u0301s xyz !"), (WORDS, "Under U.S. [SEP] 我我 pári\u0301s xyz!")],
)
def test_words_of_a_text_are_told_by_their_places(tokenizer: Tokenizer, words: str) -> None:
    text = "  Under\u00a0U.S. [SEP]\n我我 \u200b pári\u0301s xyz!"
    ((spans, pieces),) = tokenizer.words_of([text])
    found = [text[start:end] for start, end in spans]
    assert [word for word in found if word != "\u200b"] == words.split(" ")
    assert pieces.ids == tokenizer.ids(tokenizer.split(text)) and pieces.words == sorted(pieces.words)
    assert tokenizer.words_of([""]) == [([], Pieces([], []))]


def test_half_a_character_is_refused() -> None:
    for tokenizer in (PIECES, WORDS):
        with pytest.raises(BertjaxError, match="holds half a character, a lone surrogate"):
            tokenizer.encode_words([["paris", "\ud800"]])
        with pytest.raises(BertjaxError, match="holds half a character, a lone surrogate"):
            tokenizer.words_of(["paris \ud800"])
