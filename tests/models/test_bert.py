"""The model equals the textbook's, has BERT's size, and lets nothing leak."""

import dataclasses
import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_params import drawn_params
from refusals import refusal
from textbook import Reference, nested, relative_error

from bertjax.config import BertConfig
from bertjax.models.bert import Bert, init_params, num_parameters
from bertjax.objectives.metrics import mlm_loss_all_slots

SMALL = BertConfig(
    vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_position=32, dropout=0.5
)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


def test_parameters_have_the_textbooks_names_and_shapes(reference: Reference) -> None:
    ours = jax.eval_shape(lambda key: init_params(reference.model, key), jax.random.key(0))
    assert jax.tree.map(jnp.shape, reference.params) == jax.tree.map(lambda leaf: leaf.shape, ours)


def test_outputs_equal_the_textbooks(reference: Reference) -> None:
    variables, everywhere = {"params": reference.params}, np.ones_like(reference.real_bt)
    encoded = reference.model.apply(variables, *reference.tokens, reference.real_bt, method="encode")
    real = reference.real_bt > 0
    assert relative_error(encoded[real], reference.arrays["out/encoded"][real]) < 1e-5
    encoded = reference.model.apply(variables, *reference.tokens, everywhere, method="encode")
    assert relative_error(encoded, reference.arrays["out/encoded_without_valid_lens"]) < 1e-5
    mlm_logits, nsp_logits = reference.logits(reference.params)
    assert relative_error(mlm_logits, reference.arrays["out/mlm_logits"]) < 1e-5
    assert relative_error(nsp_logits[:, 0], reference.arrays["out/nsp_logits"]) < 1e-5


def test_losses_and_every_gradient_equal_the_textbooks(reference: Reference) -> None:
    gradients, means = jax.jit(jax.grad(reference.loss, has_aux=True))(reference.params)
    assert relative_error(means["mlm_loss"], reference.arrays["loss/mlm"]) < 1e-5
    assert relative_error(means["nsp_loss"], reference.arrays["loss/nsp"]) < 1e-5
    all_slots = mlm_loss_all_slots(reference.logits(reference.params)[0], reference.mlm[0])
    assert relative_error(all_slots.total / all_slots.weight, reference.arrays["loss/mlm_book"]) < 1e-5
    assert abs(reference.arrays["loss/mlm_book"] - reference.arrays["loss/mlm"]) > 0.1  # the two do differ
    for path, theirs in jax.tree_util.tree_leaves_with_path(nested(reference.arrays, "grad")):
        ours = gradients
        for step in path:
            ours = ours[step.key]
        if [step.key for step in path[-2:]] == ["key", "bias"]:
            # It moves all of a query's scores alike: the gradient is 0, and has no relative error.
            assert np.abs(ours).max() < 1e-8
        else:
            assert relative_error(ours, theirs) < 1e-5, path


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (BertConfig.textbook(20256), 5_632_546),
        (BertConfig.base(30522), 110_106_428),
        (BertConfig.large(30522), 336_226_108),
    ],
)
def test_sizes_are_the_published_ones(config: BertConfig, count: int) -> None:
    assert num_parameters(config) == count


@pytest.fixture(scope="module", params=["bert", "textbook"])
def small(request: pytest.FixtureRequest) -> tuple[Bert, dict]:
    config = (
        SMALL
        if request.param == "bert"
        else dataclasses.replace(
            SMALL, embedding_norm=False, tie_word_embeddings=False, hidden_act="relu", init="textbook"
        )
    )
    model = Bert(config)
    # Larger weights than at the start of training: attention that hardly differs would hide a leak.
    params = jax.tree.map(lambda leaf: 8 * leaf, drawn_params(model, seed=1))
    return model, params


def fresh_params(config: BertConfig, seed: int = 0) -> dict:
    return jax.jit(lambda key: init_params(Bert(config), key))(jax.random.key(seed))


@functools.partial(jax.jit, static_argnames=("model", "train"))
def forward(model: Bert, params: dict, args: tuple, *, train: bool = False, rngs: dict | None = None) -> jax.Array:
    """What the layers make of [tokens, segments, positions, sequences]."""
    return model.apply({"params": params}, *args, train=train, method="encode", rngs=rngs)


def random_row(tokens: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 50, (1, tokens))


def encode(model: Bert, params: dict, tokens: np.ndarray, positions: list, sequences: list) -> np.ndarray:
    return np.asarray(forward(model, params, (tokens, tokens * 0, np.array([positions]), np.array([sequences]))))


def test_padding_changes_nothing(small: tuple[Bert, dict]) -> None:
    positions, sequences = [0, 1, 2, 3, 4, 0, 0, 0], [1] * 5 + [0] * 3
    one, other = random_row(8), random_row(8)
    other[:, 5:] = random_row(3, seed=1)
    assert (one != other).any()
    encoded = [encode(*small, tokens, positions, sequences)[:, :5] for tokens in (one, other)]
    np.testing.assert_array_equal(*encoded)


def test_a_packed_neighbour_changes_nothing(small: tuple[Bert, dict]) -> None:
    positions, sequences = [0, 1, 2, 3, 0, 1, 2, 0], [1] * 4 + [2] * 3 + [0]
    one, other = random_row(8), random_row(8)
    other[:, 4:] = random_row(4, seed=1)
    encoded = [encode(*small, tokens, positions, sequences) for tokens in (one, other)]
    np.testing.assert_array_equal(encoded[0][:, :4], encoded[1][:, :4])
    assert (encoded[0][:, 4:7] != encoded[1][:, 4:7]).any()


def test_a_packed_sequence_is_encoded_as_if_alone(small: tuple[Bert, dict]) -> None:
    row = random_row(8)
    packed = encode(*small, row, [0, 1, 2, 3, 0, 1, 2, 0], [1] * 4 + [2] * 3 + [0])
    alone = encode(*small, row[:, 4:7], [0, 1, 2], [1, 1, 1])
    np.testing.assert_allclose(packed[:, 4:7], alone, rtol=1e-5, atol=1e-5)


def test_every_token_of_a_sequence_matters(small: tuple[Bert, dict]) -> None:
    one, other = random_row(8), random_row(8)
    other[0, 7] = other[0, 7] % 40 + 6
    encoded = [encode(*small, tokens, [*range(8)], [1] * 8) for tokens in (one, other)]
    assert (np.abs(encoded[0] - encoded[1]).max(axis=-1) > 1e-4).all()


def test_dropout_is_off_unless_training(small: tuple[Bert, dict]) -> None:
    b1, tokens = np.ones((1, 8), int), random_row(8)
    args = (tokens, b1 * 0, np.arange(8)[None], b1)
    first, second = (forward(*small, args) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    keys = [{"dropout": jax.random.key(seed)} for seed in (0, 1)]
    dropped = [forward(*small, args, train=True, rngs=key) for key in keys]
    assert (dropped[0] != dropped[1]).any() and (dropped[0] != first).any()


@pytest.fixture(scope="module")
def plainly_computed(small: tuple[Bert, dict]) -> tuple[float, dict]:
    return loss_and_gradients(*small)


@functools.partial(jax.jit, static_argnames="model")
def loss_and_gradients(model: Bert, params: dict) -> tuple[float, dict]:
    """With dropout, of two rows of different lengths."""
    real_bt = np.arange(8) < np.array([[8], [5]])
    tokens_bt = jnp.asarray(np.concatenate([random_row(8, seed=0), random_row(8, seed=1)]))

    def loss(params: dict) -> jax.Array:
        args = (tokens_bt, real_bt * 0, np.broadcast_to(np.arange(8), (2, 8)), real_bt.astype(int))
        rngs = {"dropout": jax.random.key(3)}
        encoded = model.apply({"params": params}, *args, train=True, method="encode", rngs=rngs)
        return (jnp.where(real_bt[..., None], encoded, 0) ** 3).mean()

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize("how", [{"remat": True}, {"scan_layers": True}, {"remat": True, "scan_layers": True}])
@pytest.mark.parametrize("small", ["bert"], indirect=True)  # options of layers are in test_options.py
def test_remat_and_scan_change_nothing(small: tuple[Bert, dict], plainly_computed: tuple, how: dict) -> None:
    model, params = small
    loss, gradients = loss_and_gradients(dataclasses.replace(model, **how), params)
    np.testing.assert_allclose(loss, plainly_computed[0], rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(plainly_computed[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * max(1, np.abs(theirs).max()))
    ours = jax.eval_shape(lambda: init_params(dataclasses.replace(model, **how), jax.random.key(0)))
    assert jax.tree.structure(ours) == jax.tree.structure(params)


def test_layers_are_traced_once_scan_compiles_one_and_remat_keeps_less() -> None:
    config = dataclasses.replace(SMALL, num_layers=4)
    params, rows = drawn_params(Bert(config)), np.ones((8, 32), int)

    def lowered(**how: bool) -> jax.stages.Lowered:
        model = Bert(config, **how)

        def loss(params: dict) -> jax.Array:
            rngs = {"dropout": jax.random.key(0)}
            args = (rows, rows * 0, rows * 0, rows)
            return (model.apply({"params": params}, *args, train=True, method="encode", rngs=rngs) ** 2).sum()

        return jax.jit(jax.grad(loss)).lower(params)

    traced = lowered()
    layers = re.findall(r"call @(apply_block\w*)", traced.as_text())
    assert sorted(Counter(layers).values()) == [config.num_layers] * 2  # forward and back
    plain, scanned, both = (
        low.compile() for low in (traced, lowered(scan_layers=True), lowered(scan_layers=True, remat=True))
    )
    assert len(scanned.as_text()) < 0.7 * len(plain.as_text())
    memory = [program.memory_analysis().temp_size_in_bytes for program in (scanned, both)]
    assert memory[1] < 0.7 * memory[0]


def test_bfloat16_comes_close_and_leaves_parameters_float32(small: tuple[Bert, dict]) -> None:
    model, params = small[0], jax.tree.map(lambda leaf: leaf / 8, small[1])
    loss, gradients = loss_and_gradients(dataclasses.replace(model, dtype=jnp.bfloat16), params)
    plain_loss, _ = loss_and_gradients(model, params)
    assert loss != plain_loss
    np.testing.assert_allclose(loss, plain_loss, rtol=0.05, atol=0.01)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}


def test_logits_are_computed_at_predicted_positions_only() -> None:
    config = dataclasses.replace(SMALL, vocab_size=997)
    model = Bert(config)
    params = fresh_params(config)
    rows, tokens, predictions = 3, 24, 4
    b1 = np.ones((rows, tokens), int)
    args = (b1, b1 * 0, b1, b1, np.ones((rows, predictions), int), np.zeros((rows, 1), int))

    def program(*args: np.ndarray) -> str:
        def loss(params: dict) -> jax.Array:
            return sum(logits.sum() for logits in model.apply({"params": params}, *args))

        return jax.jit(jax.grad(loss)).lower(params).compile().as_text()

    text = program(*args)
    assert f"[{rows * predictions},997]" in text  # what is looked for can be found
    assert f"[{rows * tokens},997]" not in text and f"[{rows},{tokens},997]" not in text


def test_the_textbooks_initial_weights_are_pytorchs() -> None:
    config = dataclasses.replace(BertConfig.textbook(500), num_layers=1)
    params = fresh_params(config)
    assert np.std(params["token_embedding"]) == pytest.approx(1.0, rel=0.02)
    for linear, fan_in in ((params["block_0"]["ffn"]["in"], 128), (params["block_0"]["ffn"]["out"], 256)):
        for leaf in (linear["kernel"], linear["bias"]):
            assert 0.97 < np.abs(leaf).max() * fan_in**0.5 <= 1
            assert np.std(leaf) == pytest.approx(fan_in**-0.5 / 3**0.5, rel=0.1)


def test_berts_initial_weights_are_a_truncated_normal() -> None:
    params = fresh_params(dataclasses.replace(SMALL, hidden_size=128))
    kernel = params["block_0"]["attention"]["query"]["kernel"]
    assert np.std(kernel) == pytest.approx(0.0176, rel=0.03)  # of a normal of 0.02, cut at two deviations
    assert 0.039 < np.abs(kernel).max() <= 0.04
    assert not params["block_0"]["attention"]["query"]["bias"].any()


def test_a_row_of_padding_alone_is_not_nan(small: tuple[Bert, dict]) -> None:
    assert np.isfinite(encode(*small, random_row(8), [0] * 8, [0] * 8)).all()


def test_a_model_without_its_settings_is_refused() -> None:
    key = jax.random.key(0)
    assert refusal(init_params, Bert(BertConfig()), key).startswith("config.vocab_size is not set; give")
    assert refusal(init_params, Bert("textbook"), key) == "config: expected a BertConfig, got 'textbook'"
