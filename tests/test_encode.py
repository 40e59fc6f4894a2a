"""Text to vectors: shapes, masks, unknown words, lengths, and no compilation that is not needed."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.encode import Encoder
from bertjax.errors import BertjaxError
from bertjax.model import Bert, init_params

CONFIG = BertConfig(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_position=40, dropout=0.5)
CRANE, DRIVER, LEFT = ["a", "crane", "is", "flying"], ["a", "crane", "driver", "came"], ["he", "just", "left"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = Tokenizer.train([" ".join(words) for words in (CRANE, DRIVER, LEFT)], min_frequency=1)
    config = dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size)
    params = jax.jit(lambda key: init_params(Bert(config), key))(jax.random.key(0))
    return Encoder(config, jax.tree.map(lambda leaf: 8 * leaf, params), tokenizer)


def test_the_textbooks_examples(encoder: Encoder) -> None:
    one, pair = encoder.encode_tokens(CRANE), encoder.encode_tokens(DRIVER, LEFT)
    assert one.shape == (1, 6, 16) and pair.shape == (1, 10, 16) and one.dtype == pair.dtype == np.float32
    assert np.abs(one[0, 2] - pair[0, 2]).max() > 0.1  # the crane that both share


def test_vectors_are_the_models(encoder: Encoder) -> None:
    ids = np.array([[2, *encoder.tokenizer.ids(DRIVER), 3, *encoder.tokenizer.ids(LEFT), 3]])
    segments = np.array([[0] * 6 + [1] * 4])
    args = (ids, segments, np.arange(10)[None], np.ones((1, 10), int))
    expected = Bert(encoder.config).apply({"params": encoder._params}, *args, method="encode")
    np.testing.assert_allclose(encoder.encode_tokens(DRIVER, LEFT), expected, rtol=1e-5, atol=1e-5)


def test_pooling_leaves_padding_out(encoder: Encoder) -> None:
    whole = encoder.encode_tokens(CRANE)
    for pooling, expected in (("mean", whole.mean(axis=1)), ("cls", whole[:, 0])):
        np.testing.assert_allclose(encoder.encode("a crane is flying", pooling=pooling), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(BertjaxError, match="pooling='max'"):
        encoder.encode("a", pooling="max")  # type: ignore[arg-type]


def test_many_texts_keep_their_order(encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(CRANE + LEFT, rng.integers(0, 30))) for _ in range(150)]
    vectors = encoder.encode(iter(texts))
    assert vectors.shape == (150, 16) and vectors.dtype == np.float32
    for number in (0, 70, 149):
        np.testing.assert_allclose(vectors[number], encoder.encode(texts[number])[0], rtol=1e-4, atol=1e-5)
    assert encoder.encode([]).shape == (0, 16)
    assert encoder.encode("").shape == (1, 16)


def test_pairs_are_read_together(encoder: Encoder) -> None:
    together = encoder.encode(["a crane driver came", "a crane"], ["he just left", ""], pooling="cls")
    np.testing.assert_allclose(together[0], encoder.encode_tokens(DRIVER, LEFT)[0, 0], rtol=1e-4, atol=1e-5)
    assert np.abs(together[0] - encoder.encode("a crane driver came", pooling="cls")[0]).max() > 1e-3
    with pytest.raises(BertjaxError, match="2 texts and 1 pairs"):
        encoder.encode(["a", "crane"], ["is"])


def test_text_is_lower_cased_and_split_as_in_training(encoder: Encoder) -> None:
    np.testing.assert_array_equal(encoder.encode("A  Crane\tis FLYING\n"), encoder.encode("a crane is flying"))


def test_unknown_words_are_counted_in_a_warning(encoder: Encoder) -> None:
    with pytest.warns(UserWarning, match="read as <unk>, .* 2 of 4 words, such as zebra, gnu"):
        unknown = encoder.encode_tokens(["a", "zebra", "is", "gnu"])
    np.testing.assert_array_equal(unknown, encoder.encode_tokens(["a", "<unk>", "is", "<unk>"]))  # without a warning


def test_the_warning_points_at_the_caller(encoder: Encoder) -> None:
    with pytest.warns(UserWarning) as caught:
        encoder.encode_tokens(["zebra"])
        encoder.encode("zebra")
    assert [Path(warning.filename).name for warning in caught] == ["test_encode.py"] * 2


def test_text_longer_than_the_positions(encoder: Encoder) -> None:
    longest = ["a"] * 38
    assert encoder.encode_tokens(longest).shape == (1, 40, 16)
    with pytest.raises(BertjaxError, match=r"the text has 39 words, but only 38 fit .* 40 positions"):
        encoder.encode_tokens([*longest, "crane"])
    np.testing.assert_array_equal(
        encoder.encode_tokens([*longest, "crane"], truncate=True), encoder.encode_tokens(longest)
    )
    assert encoder.encode_tokens(["a"] * 50, ["he"] * 5, truncate=True).shape == (1, 40, 16)
    assert encoder.encode(["a " * 50, "a"], ["he " * 50, "he"], truncate=True).shape == (2, 16)


def test_new_lengths_seldom_mean_a_new_compilation(encoder: Encoder) -> None:
    fresh = Encoder(encoder.config, encoder._params, encoder.tokenizer)
    for words in range(1, 39):
        fresh.encode_tokens(["a"] * words)
    assert fresh._forward._cache_size() == 2  # lengths 16 and 40
    for texts in (1, 2, 9, 64, 65, 200, 1000):
        fresh.encode(["a crane"] * texts)
    assert fresh._forward._cache_size() == 2 + 2  # a quarter of the rows taken at once, and all of them


def test_whatever_the_lengths_there_are_at_most_seven_programs() -> None:
    config = BertConfig(hidden_size=8, num_layers=1, num_heads=1, intermediate_size=8, max_position=300, vocab_size=20)
    params = jax.jit(lambda key: init_params(Bert(config), key))(jax.random.key(0))
    encoder = Encoder(config, params, Tokenizer.train(["a b c"], min_frequency=1))
    rng = np.random.default_rng(0)
    for texts in (1, 3, 30, 300):
        encoder.encode([" ".join("a" * rng.integers(0, 298)) for _ in range(texts)])
        encoder.encode([" ".join("a" * rng.integers(0, 30)) for _ in range(texts)])
    encoder.encode_tokens(["a"])
    assert 4 <= encoder._forward._cache_size() <= 7


def test_neighbours_in_a_row_change_nothing(encoder: Encoder) -> None:
    texts = ["a crane", "he just left", "is"]
    together = encoder.encode(texts)
    for others in (["a crane", "flying driver came", "a"], ["a crane", "he he he", "left"]):
        np.testing.assert_array_equal(encoder.encode(others)[0], together[0])


def test_bfloat16_comes_close(encoder: Encoder) -> None:
    halved = Encoder(encoder.config, encoder._params, encoder.tokenizer, precision="bfloat16")
    exact, rounded = encoder.encode_tokens(CRANE)[0], halved.encode_tokens(CRANE)[0]
    assert rounded.dtype == np.float32 and (exact != rounded).any()
    cosines = (exact * rounded).sum(-1) / np.linalg.norm(exact, axis=-1) / np.linalg.norm(rounded, axis=-1)
    assert cosines.min() > 0.999


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BertjaxError, match="precision='float16' is not known; give one of float32, bfloat16"):
        Encoder.load(tmp_path, precision="float16")  # type: ignore[arg-type]


def test_text_is_not_taken_for_words(encoder: Encoder) -> None:
    with pytest.raises(BertjaxError, match="takes lists of words, got text"):
        encoder.encode_tokens("a crane")


def test_dropout_is_off(encoder: Encoder) -> None:
    np.testing.assert_array_equal(encoder.encode_tokens(CRANE), encoder.encode_tokens(CRANE))
