"""Damaged vocabularies and text of every kind: the words that are there, or a clear refusal."""

import json
import tempfile
from pathlib import Path

import pytest
from answers import REFUSED, answer, damaged_bytes, damaged_json
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.rules import SPECIAL_TOKENS, UNK
from bertjax.data.tokenizer.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the crane is flying over the \u00e9t\u00e9 \u05d0\u05d1"], min_frequency=1)
CASES = json.loads((Path(__file__).parents[1] / "reference" / "tokens.json").read_text(encoding="utf-8"))
WHOLE = TOKENIZER.to_json()
TEXTS = st.text() | st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF))  # the latter with surrogates
TEXTS |= st.lists(
    st.sampled_from([*"aA\0\n\t \u0301\u202e\u200d\u00a0\u2028\u0130\ud800", "crane", *SPECIAL_TOKENS])
).map("".join)


@given(data=damaged_json(WHOLE).map(lambda text: text.encode("utf-8", "surrogatepass")) | damaged_bytes(WHOLE.encode()))
def test_damaged_files(tmp_path, data):
    """What is accepted is whole: it has the layout that we write, and every word a number of its own."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    loaded = answer(load_tokenizer, path)
    if loaded is not REFUSED:
        numbers = sorted(loaded.token_ids.values())
        words = loaded.tokens(numbers)
        assert set(loaded.rules.special_tokens) <= set(words) and loaded.vocab_size == numbers[-1] + 1
        assert loaded.ids(words) == numbers and len(set(words)) == len(words)
        path.write_text(loaded.to_json(), encoding="utf-8")
        assert load_tokenizer(path).to_json() == loaded.to_json()


@pytest.mark.filterwarnings("ignore:.*counts for nothing")
@given(data=st.data())
def test_damaged_files_of_others(data):
    """Whatever their settings say, what is accepted reads texts and can be written."""
    case = data.draw(st.sampled_from(CASES))
    damaged = data.draw(st.sampled_from([name for name in case["files"] if name.endswith(".json")]))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in case["files"].items():
            text = content if isinstance(content, str) else json.dumps(content)
            text = data.draw(damaged_json(text)) if name == damaged else text
            Path(folder, name).write_bytes(text.encode("utf-8", "surrogatepass"))
        loaded = answer(load_tokenizer, folder)
    if loaded is not REFUSED:
        assert all(map(loaded.ids, loaded.split_all([text for text, *_ in case["texts"] if text])))
        assert json.loads(loaded.to_hub_json()) and loaded.hub_settings() and loaded.to_vocab_txt()


@given(text=TEXTS)
@example("\0")
@example("\ud800")
@example("a\u0301" * 100)
def test_words_of_a_text(text):
    words = answer(TOKENIZER.split, text)
    if words is REFUSED:
        assert any("\ud800" <= character <= "\udfff" for character in text)
    else:
        spaces = {character for word in words for character in word if character.isspace()}
        assert spaces <= set("\x1c\x1d\x1e\x1f")  # which are white space to Python, and not to Unicode
        assert TOKENIZER.encode_sentences([text]) == [TOKENIZER.ids(words)]


@given(texts=st.lists(TEXTS, max_size=5), min_frequency=st.integers(1, 3))
def test_vocabularies_of_any_text(texts, min_frequency):
    """Every word that is frequent enough has a number that leads back to it."""
    trained = answer(Tokenizer.train, texts, min_frequency=min_frequency)
    if trained is REFUSED:
        assert any("\ud800" <= character <= "\udfff" for text in texts for character in text)
        return
    words = [word for text in texts for word in trained.split(text)]
    frequent = {word for word in words if words.count(word) >= min_frequency}
    assert {word for word in words if trained.ids([word]) != [UNK]} - set(SPECIAL_TOKENS) == frequent - set(
        SPECIAL_TOKENS
    )
    assert all(trained.tokens(trained.ids([word])) == [word] for word in frequent)


@given(words=st.lists(TEXTS, max_size=5))
def test_words_that_are_no_words(words):
    assert len(answer(TOKENIZER.ids, words)) == len(words)


@given(ids=st.lists(st.integers(), max_size=5))
@example([-1, 2**31, 2**32, 2**64])
def test_numbers_that_are_no_words(ids):
    tokens = answer(TOKENIZER.tokens, ids)
    assert len(tokens) == len(ids) and all(token in WHOLE for token in tokens)
