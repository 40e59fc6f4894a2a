"""Text to vectors: shapes, masks, unknown words, lengths, and no compilation that is not needed."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from drawn_params import drawn_params
from refusals import refusal

from bertjax.config import BertConfig, MeshConfig
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.inference.encoder import Encoder
from bertjax.models.bert import Bert

CONFIG = BertConfig(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_position=40, dropout=0.5)
CRANE, DRIVER, LEFT = ["a", "crane", "is", "flying"], ["a", "crane", "driver", "came"], ["he", "just", "left"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = Tokenizer.train([" ".join(words) for words in (CRANE, DRIVER, LEFT)], min_frequency=1)
    config = dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size)
    params = drawn_params(Bert(config))
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
    texts = ["he", "a crane is flying", "a crane " * 15]
    for pooling, expected in (("mean", whole.mean(axis=1)), ("cls", whole[:, 0]), ("max", whole.max(axis=1))):
        vectors = encoder.encode(texts, pooling=pooling)  # type: ignore[call-overload]
        np.testing.assert_allclose(vectors[1:2], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(BertjaxError, match="pooling: expected one of cls, .*, tokens or null, got 'least'"):
        encoder.encode("a", pooling="least")  # type: ignore[call-overload]


def test_all_tokens_of_each_text(encoder: Encoder) -> None:
    texts = ["he just left", "", "a crane " * 15, "a crane is flying"]
    several = encoder.encode(texts, pooling="tokens")
    assert [vectors.shape for vectors in several] == [(5, 16), (2, 16), (32, 16), (6, 16)]
    for text, vectors in zip(texts, several, strict=True):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, encoder.encode_tokens(text.split())[0], rtol=1e-4, atol=1e-5)
    assert encoder.encode([], pooling="tokens") == []


def test_normalized_vectors_have_length_one(encoder: Encoder) -> None:
    texts = ["he just left", "", "a crane is flying"]
    plain, unit = encoder.encode(texts), encoder.encode(texts, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(unit * np.linalg.norm(plain, axis=1, keepdims=True), plain, rtol=1e-5, atol=1e-6)
    for vectors in encoder.encode(texts, pooling="tokens", normalize=True):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    nothing = Encoder(encoder.config, jax.tree.map(lambda leaf: 0 * leaf, encoder._params), encoder.tokenizer)
    np.testing.assert_array_equal(nothing.encode("he", normalize=True), np.zeros((1, 16)))


@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "tokens"])
def test_any_number_of_devices_gives_the_same_vectors(
    encoder: Encoder, devices: Callable[[int], None], pooling: str
) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(CRANE + LEFT, rng.integers(0, 30))) for _ in range(70)]
    params = jax.device_get(encoder._params)
    devices(1)
    alone = Encoder(encoder.config, params, encoder.tokenizer)
    assert (encoder.engine.row_shards, alone.engine.row_shards) == (8, 1)
    for one, other in zip(
        encoder.encode(texts, pooling=pooling, normalize=True),  # type: ignore[call-overload]
        alone.encode(texts, pooling=pooling, normalize=True),  # type: ignore[call-overload]
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_a_mesh_gives_the_vectors_of_one_device(encoder: Encoder, devices: Callable[[int], None]) -> None:
    params = jax.device_get(encoder._params)
    split = Encoder(encoder.config, params, encoder.tokenizer, mesh=MeshConfig(2, 2, 2))
    kernel = split._params["block_0"]["ffn"]["in"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (16 // 2, 32 // 2) and split.engine.row_shards == 4
    devices(1)
    alone = Encoder(encoder.config, params, encoder.tokenizer, mesh=MeshConfig())
    texts = ["a crane is flying", "", "he just left", *["a crane", "driver"] * 20]
    np.testing.assert_allclose(split.encode(texts), alone.encode(texts), rtol=1e-5, atol=1e-5)
    for ours, one in zip(split.fill_mask("a <mask>", top=20)[0], alone.fill_mask("a <mask>", top=20)[0], strict=True):
        assert ours.word == one.word and abs(ours.probability - one.probability) < 1e-5
    assert split.fingerprint() == alone.fingerprint()


def test_a_mesh_that_does_not_suit_is_refused(encoder: Encoder) -> None:
    def on(mesh: Any) -> Encoder:
        return Encoder(encoder.config, encoder._params, encoder.tokenizer, mesh=mesh)

    told = "mesh.data=1 x mesh.fsdp=3 x mesh.tensor=1 is a mesh of 3 devices, and there are 8; give sizes whose"
    assert told in refusal(on, MeshConfig(1, 3, 1))
    assert "model.num_heads=2 is not divisible by mesh.tensor=4" in refusal(on, MeshConfig(-1, 1, 4))
    assert "mesh: expected a MeshConfig or null, got 8" in refusal(on, 8)


def test_texts_come_as_people_have_them(encoder: Encoder) -> None:
    singles, paired = encoder.encode(["a crane", "he"]), encoder.encode(["a crane", "he"], ["just left", ""])
    for texts in (iter(["a crane", "he"]), np.array(["a crane", "he"]), {"a crane": 1, "he": 2}.keys()):
        np.testing.assert_array_equal(encoder.encode(texts), singles)
    np.testing.assert_array_equal(encoder.encode(("a crane", "just left")), paired[:1])
    np.testing.assert_array_equal(encoder.encode(iter([("a crane", "just left"), ("he", "")])), paired)
    mixed = encoder.encode(["a crane", ("he", "")])
    np.testing.assert_allclose(mixed, [singles[0], paired[1]], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(encoder.encode("a crane", "just left"), encoder.encode([("a crane", "just left")]))


def test_what_is_no_text_is_refused_by_every_call(encoder: Encoder) -> None:
    assert "text 1 is of type NoneType" in refusal(encoder.encode, ["a", None])
    assert "pair 0 is of type int" in refusal(encoder.encode, ["a"], [3])
    assert refusal(encoder.encode, ["a", "b"], ["a"]) == "2 texts and 1 pairs; give one pair for each text"
    assert "text 3 is of type int" in refusal(list, encoder.stream([["a", "b"], ["c", 3]]))
    assert "windows is of type int" in refusal(list, encoder.stream(3))
    assert "word 1 of tokens is of type int" in refusal(encoder.encode_tokens, ["a", 3])
    assert "word 0 of pair is of type NoneType" in refusal(encoder.tokens_read, ["a"], [None])
    assert "the text is of type list" in refusal(encoder.fill_mask, ["a <mask>"])
    assert "the word is of type bytes" in refusal(encoder.word_vectors, b"crane", ["a crane"])
    assert "text 1 is of type int" in refusal(encoder.word_vectors, "crane", ["a crane", 7])
    assert "text 1 is a pair" in refusal(encoder.word_vectors, "crane", ["a crane", ("a", "crane")])


def test_words_may_come_from_a_generator(encoder: Encoder) -> None:
    words, left = (word for word in DRIVER), np.array(LEFT)
    np.testing.assert_array_equal(encoder.encode_tokens(words, left), encoder.encode_tokens(DRIVER, LEFT))
    assert encoder.tokens_read(iter(CRANE)) == ["<cls>", *CRANE, "<sep>"]


def test_a_stream_is_its_windows_one_after_the_other(encoder: Encoder) -> None:
    texts = ["a crane is flying", ("he", "just left"), "a zebra", "", "gnu"]
    with pytest.warns(UserWarning, match="2 of 10 words, such as zebra, gnu") as caught:
        windows = list(encoder.stream(iter([texts[:2], [], texts[2:]]), pooling="cls"))
    assert len(caught) == 1 and [len(window) for window in windows] == [2, 0, 3]
    for some, window in zip((texts[:2], texts[2:]), windows[::2], strict=True):
        with warnings.catch_warnings(action="ignore"):
            alone = [encoder.encode(text, pooling="cls")[0] for text in some]
        np.testing.assert_allclose(window, alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(BertjaxError, match="line 3 has 39 words"):
        list(encoder.stream([texts[:2], ["he", "a " * 39]], name="line {}".format))


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
    assert [Path(warning.filename).name for warning in caught] == ["test_encoder.py"] * 2


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
    assert fresh.engine.forward is encoder.engine.forward  # nor does a new encoder of an equal model
    fresh.engine.forward.clear_cache()
    for words in range(1, 39):
        fresh.encode_tokens(["a"] * words)
    assert fresh.engine.forward._cache_size() == 2  # lengths 16 and 40
    fresh.engine.forward.clear_cache()
    for texts in (1, 2, 9, 64, 65, 200, 1000, 3000):
        fresh.encode(["a crane"] * texts)
    assert fresh.engine.forward._cache_size() == 3  # a row for each device, a quarter of the most, and the most


def test_whatever_the_lengths_there_are_at_most_seven_programs() -> None:
    config = BertConfig(hidden_size=8, num_layers=1, num_heads=1, intermediate_size=8, max_position=300, vocab_size=20)
    params = drawn_params(Bert(config))
    encoder = Encoder(config, params, Tokenizer.train(["a b c"], min_frequency=1))
    rng = np.random.default_rng(0)
    for texts in (1, 3, 30, 300):
        encoder.encode([" ".join("a" * rng.integers(0, 298)) for _ in range(texts)])
        encoder.encode([" ".join("a" * rng.integers(0, 30)) for _ in range(texts)])
    encoder.encode_tokens(["a"])
    assert 4 <= encoder.engine.forward._cache_size() <= 7


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
    with pytest.raises(BertjaxError, match="precision: expected one of float32, bfloat16, got 'float16'"):
        Encoder.load(tmp_path, precision="float16")  # type: ignore[arg-type]


def test_arguments_of_other_types_are_refused(encoder: Encoder) -> None:
    np.testing.assert_array_equal(
        encoder.encode("he", normalize=np.bool_(True), truncate=np.bool_(False)), encoder.encode("he", normalize=True)
    )
    assert encoder.fill_mask("a <mask>", top=np.int64(2)) == encoder.fill_mask("a <mask>", top=2)
    assert "normalize: expected true or false or null, got 'False'" in refusal(
        lambda: encoder.encode("a", normalize="False")
    )
    assert "truncate: expected true or false, got 1" in refusal(lambda: encoder.encode_tokens(["a"], truncate=1))
    assert "top: expected a whole number, got 2.0" in refusal(lambda: encoder.fill_mask("a <mask>", top=2.0))
    assert "name: expected a Callable, got None" in refusal(lambda: list(encoder.stream([["a"]], name=None)))


def test_a_model_of_other_parts_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    config, params, tokenizer = encoder.config, encoder._params, encoder.tokenizer
    assert "folder: expected a path, got None" in refusal(Encoder.load, None)
    assert "cannot be read: File name too long" in refusal(Encoder.load, tmp_path / ("a" * 300))
    assert "params: expected a dict, got None" in refusal(Encoder, config, None, tokenizer)
    without = {name: part for name, part in params.items() if name != "block_1"}
    assert "params: block_1/attention/" in refusal(Encoder, config, without, tokenizer)
    wider = dataclasses.replace(config, hidden_size=32)
    assert "is of shape [" in refusal(Encoder, wider, params, tokenizer)
    fewer = dataclasses.replace(config, vocab_size=6)
    assert "tokens, and config.vocab_size=6" in refusal(Encoder, fewer, params, tokenizer)


def test_text_is_not_taken_for_words(encoder: Encoder) -> None:
    with pytest.raises(BertjaxError, match="tokens is text, and a list of words is needed"):
        encoder.encode_tokens("a crane")


def test_dropout_is_off(encoder: Encoder) -> None:
    np.testing.assert_array_equal(encoder.encode_tokens(CRANE), encoder.encode_tokens(CRANE))


# Masks.


def test_words_for_a_mask(encoder: Encoder) -> None:
    first, second = encoder.fill_mask("a <mask> is\t[MASK]he", top=3)
    words = ["a", "<mask>", "is", "<mask>"]
    ids = np.array([[2, *encoder.tokenizer.ids([*words, "he"]), 3]])
    at, none = np.array([[2, 4]]), np.zeros_like(ids)
    args = (ids, none, np.arange(7)[None], none + 1, at, np.array([[0]]))
    logits_1pv, _ = Bert(encoder.config).apply({"params": encoder._params}, *args)
    likely_pv = np.asarray(jax.nn.softmax(logits_1pv[0]))
    for guesses, likely_v in zip((first, second), likely_pv, strict=True):
        best = np.argsort(-likely_v)[:3]
        assert [guess.word for guess in guesses] == encoder.tokenizer.tokens(best)
        np.testing.assert_allclose([guess.probability for guess in guesses], likely_v[best], rtol=1e-4)


def test_all_words_for_many_masks_add_up(encoder: Encoder) -> None:
    guessed = encoder.fill_mask("<mask> " * 20, top=1000)
    assert len(guessed) == 20 and {len(guesses) for guesses in guessed} == {encoder.tokenizer.vocab_size}
    np.testing.assert_allclose([sum(guess.probability for guess in guesses) for guesses in guessed], 1, rtol=1e-5)
    chances = [guess.probability for guess in guessed[7]]
    assert chances == sorted(chances, reverse=True)


@pytest.mark.parametrize("kind, special", [("word", SPECIAL_TOKENS), ("wordpiece", BERTS_SPECIAL_TOKENS)])
def test_a_mask_is_one_whatever_its_name(kind: Any, special: tuple[str, ...]) -> None:
    tokenizer = Tokenizer.train([" ".join(CRANE)], min_frequency=1, rules=Rules(kind, special=special))
    config = dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size + 3)  # some rows have no token
    params = drawn_params(Bert(config))
    encoder = Encoder(config, params, tokenizer)
    (guesses,) = encoder.fill_mask("a <mask> is flying", top=100)
    assert len(guesses) == tokenizer.vocab_size and sum(guess.probability for guess in guesses) < 1
    for text in ("a [MASK] is flying", "A<mask>is flying"):
        assert encoder.fill_mask(text, top=100) == [guesses]


def test_what_cannot_be_filled(encoder: Encoder) -> None:
    with pytest.raises(BertjaxError, match="there is no <mask> in 'a crane'; put one where"):
        encoder.fill_mask("a crane")
    with pytest.raises(BertjaxError, match="top=0 is no number of words"):
        encoder.fill_mask("a <mask>", top=0)
    with pytest.raises(BertjaxError, match="the text has 40 words"):
        encoder.fill_mask("a <mask>" * 20)
    with pytest.warns(UserWarning, match="1 of 2 words, such as zebra"):
        encoder.fill_mask("<mask> zebra")
    headless = {name: leaf for name, leaf in encoder._params.items() if name != "mlm"}
    with pytest.raises(BertjaxError, match="has no head that predicts words"):
        Encoder(encoder.config, headless, encoder.tokenizer).fill_mask("a <mask>")


# Uses of a word.


def test_every_use_of_a_word(encoder: Encoder) -> None:
    texts = ["a crane is a crane", "he left", "Crane", "a a a crane driver"]
    uses = encoder.word_vectors("CRANE", iter(texts))
    assert [(use.text, use.position) for use in uses] == [(0, 2), (0, 5), (2, 1), (3, 4)]
    for use in uses:
        expected = encoder.encode_tokens(texts[use.text].lower().split())[0, use.position]
        np.testing.assert_allclose(use.vector_d, expected, rtol=1e-4, atol=1e-5)
    two = encoder.word_vectors("a crane", texts)
    assert [(use.text, use.position) for use in two] == [(0, 1), (0, 4), (3, 3)]
    np.testing.assert_allclose(
        two[0].vector_d, encoder.encode_tokens("a crane is a crane".split())[0, 1:3].mean(0), rtol=1e-4, atol=1e-5
    )


def test_a_word_of_several_pieces() -> None:
    tokenizer = Tokenizer.from_vocab(
        {token: number for number, token in enumerate([*SPECIAL_TOKENS, "crane", "##s", "##man", "a", "."])},
        Rules("wordpiece"),
    )
    config = dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size)
    params = drawn_params(Bert(config))
    encoder = Encoder(config, params, tokenizer)
    texts = ["a crane.", "Cranes cranemans", "cranes. a"]
    assert [(use.text, use.position) for use in encoder.word_vectors("crane", texts)] == [(0, 2)]
    uses = encoder.word_vectors("cranes", texts)
    assert [(use.text, use.position) for use in uses] == [(1, 1), (2, 1)]
    whole = encoder.encode(texts, pooling="tokens")
    np.testing.assert_allclose(uses[0].vector_d, whole[1][1:3].mean(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(BertjaxError, match="the vocabulary has no tokens for 'zebra'; give another word"):
        encoder.word_vectors("zebra", texts)


def test_what_is_no_use_of_a_word(encoder: Encoder) -> None:
    assert encoder.word_vectors("crane", ["he left", ""]) == [] and encoder.word_vectors("crane", []) == []
    assert encoder.word_vectors("crane", "a " * 40 + "crane", truncate=True) == []  # cut off
    with pytest.raises(BertjaxError, match="the word ' ' is empty"):
        encoder.word_vectors(" ", ["a"])
    with pytest.warns(UserWarning, match="1 of 2 words, such as zebra"):
        assert len(encoder.word_vectors("zebra", ["a zebra"])) == 1
