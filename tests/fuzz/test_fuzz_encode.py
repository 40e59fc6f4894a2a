"""Text of every kind to vectors: finite ones, the same however it comes, or a clear refusal."""

import dataclasses
import warnings

import numpy as np
import pytest
from answers import REFUSED, answer
from drawn_params import drawn_params
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.config import BertConfig
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.inference.encoder import Encoder
from bertjax.models.bert import Bert

CONFIG = BertConfig(hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, max_position=40)
TEXTS = st.text(max_size=60) | st.text(st.characters(max_codepoint=0x10FFFF), max_size=9)  # the latter with surrogates
TEXTS |= st.sampled_from(["", "\0", " \u2028\t", "<mask> <cls>", "\u05d0\u05d1 \u202e", "e\u0301", "a " * 60, "\ud800"])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = Tokenizer.train(["a crane is flying \u05d0\u05d1 e\u0301"], min_frequency=1)
    config = dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size)
    return Encoder(config, drawn_params(Bert(config)), tokenizer)


def quiet(call, *args, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of unknown words
        return answer(call, *args, **settings)


def surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


@given(texts=st.lists(TEXTS, max_size=4), cut=st.booleans(), pooling=st.sampled_from(["mean", "cls", "max"]))
def test_texts(encoder, texts, cut, pooling):
    vectors = quiet(encoder.encode, texts, pooling=pooling, truncate=cut)
    too_long = any(len(text.split()) > CONFIG.max_position - 2 for text in texts)
    if vectors is REFUSED:
        assert any(map(surrogates, texts)) or (too_long and not cut)
        return
    assert vectors.shape == (len(texts), 16) and np.isfinite(vectors).all()
    for text, vector in zip(texts, vectors, strict=True):  # whatever its neighbours are
        np.testing.assert_allclose(quiet(encoder.encode, text, pooling=pooling, truncate=cut)[0], vector, atol=1e-5)


@given(words=st.lists(TEXTS, max_size=45), pair=st.none() | st.lists(TEXTS, max_size=5), cut=st.booleans())
@example(["a"], ["\ud800"], False)
def test_words(encoder, words, pair, cut):
    vectors = quiet(encoder.encode_tokens, words, pair, truncate=cut)
    if vectors is REFUSED:
        too_long = len(words) + len(pair or []) + 2 > CONFIG.max_position - (pair is not None)
        assert any(map(surrogates, [*words, *(pair or [])])) or (too_long and not cut)
        return
    assert len(quiet(encoder.tokens_read, words, pair, truncate=cut)) == vectors.shape[1] <= CONFIG.max_position
    assert np.isfinite(vectors).all()


def test_a_text_of_ten_million_bytes(encoder):
    for text in ("a " * 5_000_000, "y" * 10_000_000, "\u0301" * 5_000_000):
        vectors = quiet(encoder.encode, text, truncate=True)
        assert vectors.shape == (1, 16) and np.isfinite(vectors).all()
    assert quiet(encoder.encode, "a " * 5_000_000) is REFUSED
