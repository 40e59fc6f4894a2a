"""Objects of every kind to the public calls: each is taken for what it can only mean, or refused in one line."""

import dataclasses
import datetime
import warnings
from collections import namedtuple
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from answers import REFUSED, answer
from drawn_params import drawn_params
from hypothesis import given
from hypothesis import strategies as st

import bertjax
from bertjax.config import BertConfig, Config
from bertjax.config.keys import SECTIONS, TYPES
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.inference.encoder import Encoder
from bertjax.models.bert import Bert


class Unprintable:
    def __repr__(self):
        raise ValueError("no words for it")


class Unequal:
    def __eq__(self, other):
        return np.array([True, False])

    __hash__ = None


TEXTS = st.text(st.characters(), max_size=6) | st.sampled_from(["a <mask>", "crane", "mean", "1", "", "\0", "\ud800"])
ODD = st.sampled_from(
    [object(), Unequal(), len, int, Path("a"), Path("."), datetime.date(2020, 1, 2), ..., NotImplemented]
    + [range(3), 1j, 10**400, memoryview(b"a"), bytearray(b"a"), namedtuple("Pair", "a b")("a", "b"), slice(1)]
    + [np.float32(1), np.int8(3), np.bool_(True), np.str_("a"), np.bytes_(b"a"), np.datetime64("2020"), np.array("a")]
    + [np.array(["a", "b"]), np.array([["a"]]), np.zeros((2, 2)), np.array([None, "a"]), np.zeros(0), np.array(None)]
    + [np.ma.masked, np.array(["a"], np.dtypes.StringDType()), np.rec.array([("a", 1)]), jax.numpy.ones(2)]
)
ODD |= st.builds(Unprintable)
LEAVES = st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.binary(max_size=3) | TEXTS | ODD


def several(inner):
    lists = st.lists(inner, max_size=3)
    made = [
        lists.map(tuple),
        lists.map(iter),
        lists.map(lambda some: (one for one in some)),
        st.dictionaries(TEXTS, inner),
    ]
    made += [st.sets(TEXTS, max_size=3), st.dictionaries(TEXTS, TEXTS).map(dict.keys)]
    return st.one_of(lists, *made)


OBJECTS = st.recursive(LEAVES, several, max_leaves=6)


@pytest.fixture(scope="module")
def encoder():
    tokenizer = Tokenizer.train(["a crane is flying"], min_frequency=1)
    config = BertConfig(tokenizer.vocab_size, hidden_size=8, num_layers=1, num_heads=1, intermediate_size=8)
    return Encoder(config, drawn_params(Bert(config)), tokenizer)


CALLS = {
    "encode": lambda encoder, it: encoder.encode(it),
    "encode's pairs": lambda encoder, it: encoder.encode(["a", "a"], it),
    "encode's pooling": lambda encoder, it: encoder.encode("a", pooling=it),
    "encode's normalize": lambda encoder, it: encoder.encode("a", normalize=it),
    "encode's truncate": lambda encoder, it: encoder.encode("a", truncate=it),
    "encode's prompt": lambda encoder, it: encoder.encode("a", prompt=it),
    "encode_tokens": lambda encoder, it: encoder.encode_tokens(it),
    "encode_tokens's pair": lambda encoder, it: encoder.encode_tokens(["a"], it),
    "tokens_read": lambda encoder, it: encoder.tokens_read(it),
    "stream": lambda encoder, it: list(encoder.stream(it)),
    "stream's window": lambda encoder, it: list(encoder.stream([["a"], it])),
    "stream's name": lambda encoder, it: list(encoder.stream([["a"]], name=str if callable(it) else it)),
    "fill_mask": lambda encoder, it: encoder.fill_mask(it),
    "fill_mask's top": lambda encoder, it: encoder.fill_mask("a <mask>", top=it),
    "word_vectors": lambda encoder, it: encoder.word_vectors("crane", it),
    "word_vectors's word": lambda encoder, it: encoder.word_vectors(it, ["a crane"]),
    "vector_size": lambda encoder, it: encoder.vector_size(it),
    "Encoder": lambda encoder, it: Encoder(it, it, it),
    "Encoder's params": lambda encoder, it: Encoder(encoder.config, it, encoder.tokenizer),
    "Encoder's precision": lambda encoder, it: Encoder(
        encoder.config, encoder._params, encoder.tokenizer, precision=it
    ),
    "Encoder's sentence": lambda encoder, it: Encoder(encoder.config, encoder._params, encoder.tokenizer, sentence=it),
    "Encoder.load": lambda encoder, it: Encoder.load(it),
    "load_config": lambda encoder, it: bertjax.load_config(it),
    "load_config's overrides": lambda encoder, it: bertjax.load_config("tiny", it),
    "pretrain": lambda encoder, it: bertjax.pretrain(it),
}


@pytest.mark.parametrize("call", CALLS)
@given(it=OBJECTS)
def test_a_call_works_or_refuses(encoder, call, it):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of unknown words
        answer(CALLS[call], encoder, it)


@given(key=st.sampled_from(sorted(TYPES)), it=OBJECTS)
def test_a_configuration_takes_what_its_file_can_hold(key, it):
    section, _, name = key.rpartition(".")
    made = answer(SECTIONS.get(section, Config), **{name: it})
    if made is not REFUSED:
        assert yaml.safe_load(yaml.safe_dump(dataclasses.asdict(made)))[name] == getattr(made, name)
