"""What BERT does not have: each option does what it says, and nothing else."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.models.bert import Bert, init_params, params_template
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.encoder import Attention, Block, FeedForward
from bertjax.models.heads import compared
from bertjax.models.layers import Norm
from bertjax.models.sentence import Labelled, pool
from bertjax.ops.rotary import apply_rotary, biases_that_look

SMALL = BertConfig(
    vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_position=32, dropout=0.0
)
KEY = jax.random.key(0)
B, T = 2, 8


def small(**options: Any) -> BertConfig:
    return dataclasses.replace(SMALL, **options)


def names(config: BertConfig) -> set[str]:
    paths = jax.tree_util.tree_leaves_with_path(params_template(Bert(config)))
    return {"/".join(step.key for step in path) for path, _ in paths}


def inputs(seed: int = 0) -> tuple[jax.Array, ...]:
    """Two rows of a pair each: tokens, segments, positions, sequences."""
    tokens_bt = jax.random.randint(jax.random.key(seed), (B, T), 5, 50)
    segments_bt = jnp.broadcast_to(jnp.arange(T) >= 5, (B, T)).astype(jnp.int32)
    positions_bt = jnp.broadcast_to(jnp.arange(T), (B, T))
    return tokens_bt, segments_bt, positions_bt, jnp.ones((B, T), jnp.int32)


def encode(config: BertConfig, params: dict, *args: jax.Array) -> jax.Array:
    return encoded(Bert(config), params, *args)


@functools.partial(jax.jit, static_argnames="model")
def encoded(model: Bert, params: dict, *args: jax.Array) -> jax.Array:
    return model.apply({"params": params}, *args, method="encode")


@functools.partial(jax.jit, static_argnames="config")
def fresh_params(config: BertConfig) -> dict:
    params = init_params(Bert(config), KEY)
    table = params.get("relative_attention_bias")  # which begins as nothing
    return params if table is None else params | {"relative_attention_bias": jax.random.normal(KEY, table.shape)}


@functools.partial(jax.jit, static_argnames="module")
def applied(module: Any, variables: dict, *args: jax.Array) -> jax.Array:
    """What a layer makes of its arguments, without dropout."""
    return module.apply(variables, *args, train=False)


@functools.partial(jax.jit, static_argnames="model")
def looked_at(model: Bert, params: dict, *args: jax.Array) -> jax.Array:
    return model.apply({"params": params}, *args, method="attention_weights")


# Layers that differ.


def test_layers_see_what_is_in_their_window_however_they_are_compiled() -> None:
    """Four layers, of which the second to fourth see one token to either side, and the first has no norm."""
    c = small(num_layers=4, norm="pre", positions="rotary", window=1, global_every=4, token_types=0)
    c = dataclasses.replace(c, first_attention_norm=False, local_rotary_theta=50.0, init_scale=0.3)
    params = drawn_params(Bert(c))
    assert "segment_embedding" not in params and "attention_norm" not in params["block_0"]
    tokens_bt, *rest = inputs()
    looks = np.asarray(looked_at(Bert(c), params, tokens_bt, *rest))
    far_ts = np.abs(np.arange(T)[:, None] - np.arange(T)[None]) > 1
    assert looks[0][..., far_ts].min() > 0 == looks[1:][..., far_ts].max()
    found = encode(c, params, tokens_bt, *rest)
    scanned = encoded(Bert(c, scan_layers=True), params, tokens_bt, *rest)
    np.testing.assert_allclose(found, scanned, atol=1e-5)
    for other in ({"local_rotary_theta": None}, {"window": 2}, {"rotary_theta": 50.0}):
        assert np.abs(encode(dataclasses.replace(c, **other), params, tokens_bt, *rest) - found).max() > 1e-3


def test_layers_that_share_parameters_are_as_those_that_have_copies_of_them() -> None:
    shared, plain = small(share_layers=True, num_layers=3), small(num_layers=3)
    params = drawn_params(Bert(shared))
    copies = params | {f"block_{layer}": params["block_0"] for layer in range(3)}
    assert names(plain) - names(shared) == {name for name in names(plain) if re.match("block_[12]/", name)}
    np.testing.assert_array_equal(encode(shared, params, *inputs()), encode(plain, copies, *inputs()))
    looks = np.asarray(looked_at(Bert(shared), params, *inputs()))
    assert looks.shape == (3, B, 2, T, T) and np.abs(looks[2] - looks[0]).max() > 0


# Positions.


def test_rotary_attention_depends_on_distances_alone() -> None:
    config = small(positions="rotary")
    x_nd, sequences_bt = jax.random.normal(KEY, (B * T, 16)), jnp.ones((B, T), jnp.int32)
    attention = Attention(config, jnp.float32)
    positions_bt = inputs()[2]
    variables = jax.jit(attention.init, static_argnames="train")(KEY, x_nd, positions_bt, sequences_bt, train=False)
    variables = jax.tree.map(lambda leaf: 20 * leaf, variables)  # else all weights are near 1/t

    def attend(positions_bt: jax.Array) -> jax.Array:
        return applied(attention, variables, x_nd, positions_bt, sequences_bt)

    here = attend(positions_bt)
    np.testing.assert_allclose(attend(positions_bt + 1000), here, atol=2e-3)
    assert float(jnp.abs(attend(2 * positions_bt) - here).max()) > 0.1
    assert float(jnp.abs(attend(positions_bt[:, ::-1]) - here).max()) > 0.1


def test_rotary_turns_and_does_not_stretch() -> None:
    x_bhte = jax.random.normal(KEY, (B, 2, T, 6))
    turned_bhte = apply_rotary(x_bhte, inputs()[2])
    np.testing.assert_allclose(jnp.linalg.norm(turned_bhte, axis=-1), jnp.linalg.norm(x_bhte, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(turned_bhte[:, :, 0], x_bhte[:, :, 0])
    # The first pair of features turns by one radian a position, the last by 10,000 ** (-2 / 3).
    for pair, speed in ((0, 1.0), (2, 10_000 ** (-2 / 3))):
        z, turned_z = (x[0, 0, 5, pair] + 1j * x[0, 0, 5, pair + 3] for x in (x_bhte, turned_bhte))
        assert complex(turned_z / z) == pytest.approx(np.exp(5j * speed), abs=1e-5)


def test_rotary_has_no_table_of_positions_but_tells_them_apart() -> None:
    config = small(positions="rotary")
    assert names(SMALL) - names(config) == {"position_embedding"}
    tokens_bt, *rest = inputs()
    params = jax.tree.map(lambda leaf: 10 * leaf, drawn_params(Bert(config)))
    swapped_bt = tokens_bt.at[:, 2].set(tokens_bt[:, 3]).at[:, 3].set(tokens_bt[:, 2])
    plain, swapped = (encode(config, params, tokens, *rest) for tokens in (tokens_bt, swapped_bt))
    assert float(jnp.abs(plain[:, 0] - swapped[:, 0]).max()) > 1e-3


@pytest.mark.parametrize("features", [32, 64, 128])
def test_biases_that_look(features: int) -> None:
    """The score of the place looked at is 1 above those beside it, and no place further away comes near it."""
    offset_h = (-1, 1, 3)
    query_he, key_he = (bias.reshape(3, features) for bias in biases_that_look(offset_h, features))

    @jax.jit
    def turned(bias_he: jax.Array) -> jax.Array:
        x_bhte = jnp.broadcast_to(bias_he[None, :, None], (1, 3, 64, features))
        return apply_rotary(x_bhte, jnp.arange(64)[None])

    query_bhte, key_bhse = (np.asarray(turned(bias_he)) for bias_he in (query_he, key_he))
    scores_hs = np.einsum("he,hse->hs", query_bhte[0, :, 30], key_bhse[0]) * features**-0.5
    for offset, score_s in zip(offset_h, scores_hs, strict=True):
        at = 30 + offset
        np.testing.assert_allclose(score_s[at] - score_s[[at - 1, at + 1]], 1, atol=1e-3)
        assert score_s.argmax() == at and score_s[at] - np.delete(score_s, range(at - 1, at + 2)).max() > 2


def test_attention_that_starts_at_neighbours() -> None:
    config = small(positions="rotary", attention_start="neighbours", hidden_size=64)
    plain = dataclasses.replace(config, attention_start="random")
    ours, theirs = (fresh_params(one) for one in (config, plain))
    differing = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
        if (ours != theirs).any()
    }
    ends = ("query/bias", "key/bias", "value/kernel", "out/kernel")
    assert differing == {f"block_{n}/attention/{end}" for n in (0, 1) for end in ends}
    of_ours, of_theirs = (params["block_1"]["attention"]["value"]["kernel"] for params in (ours, theirs))
    np.testing.assert_array_equal(of_ours, 2 * of_theirs)
    # Token 4 is most moved by a change of its neighbours: head 0 looks before it, head 1 after it.
    tokens_bt, *rest = (x[:1] for x in inputs())
    before = encode(config, ours, tokens_bt, *rest)[0, 4]
    moved = [
        float(jnp.abs(encode(config, ours, tokens_bt.at[0, t].add(1) % 50, *rest)[0, 4] - before).sum())
        for t in range(T)
    ]
    assert {3, 4, 5} == set(np.argsort(moved)[-3:].tolist())


# Norms.


def test_pre_norm_leaves_the_residual_alone() -> None:
    block = Block(small(norm="pre"), jnp.float32)
    x_nd = jax.random.normal(KEY, (B * T, 16)) * 7
    _, _, positions_bt, sequences_bt = inputs()
    variables = jax.jit(block.init, static_argnames="train")(KEY, x_nd, positions_bt, sequences_bt, train=False)
    silent = jax.tree.map_with_path(lambda path, leaf: leaf * (path[-2].key != "out"), variables)
    np.testing.assert_array_equal(applied(block, silent, x_nd, positions_bt, sequences_bt), x_nd)
    scaled = [applied(block, variables, x, positions_bt, sequences_bt) - x for x in (x_nd, 3 * x_nd)]
    np.testing.assert_allclose(*scaled, atol=1e-4)  # what a sublayer reads is normalised


def test_pre_norm_ends_with_a_norm() -> None:
    assert names(small(norm="pre")) - names(SMALL) == {"final_norm/scale", "final_norm/bias"}
    encoded = encode(small(norm="pre"), drawn_params(Bert(small(norm="pre"))), *inputs())
    np.testing.assert_allclose(encoded.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(encoded.std(-1), 1, atol=1e-3)


def test_rms_norm_divides_by_the_root_of_the_mean_square() -> None:
    x_nd = jax.random.normal(KEY, (3, 16)) + 5
    norm = Norm(small(norm_kind="rms"))
    variables = norm.init(KEY, x_nd)
    assert list(variables["params"]) == ["scale"]
    expected = x_nd / jnp.sqrt((x_nd**2).mean(-1, keepdims=True))
    np.testing.assert_allclose(norm.apply(variables, x_nd), expected, rtol=1e-5)


# Feed-forward layers and biases.


@pytest.mark.parametrize(
    ("name", "activation"), [("geglu", lambda x: jax.nn.gelu(x, approximate=False)), ("swiglu", jax.nn.silu)]
)
def test_gated_layers_multiply_two_products(name: str, activation: Any) -> None:
    layer, x_nd = FeedForward(small(hidden_act=name), jnp.float32), jax.random.normal(KEY, (3, 16))
    rng = np.random.default_rng(1)
    template = jax.eval_shape(layer.init, KEY, x_nd)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), template)
    inner, gate, out = (variables["params"][part] for part in ("in", "gate", "out"))
    product = activation(x_nd @ inner["kernel"] + inner["bias"][None]) * (x_nd @ gate["kernel"] + gate["bias"][None])
    np.testing.assert_allclose(
        jax.jit(layer.apply)(variables, x_nd), product @ out["kernel"] + out["bias"][None], atol=1e-5
    )


def test_without_biases_there_is_the_vocabularys_alone() -> None:
    for options in ({}, {"norm": "pre", "hidden_act": "geglu"}, {"tie_word_embeddings": False}):
        left = {name for name in names(small(biases=False, **options)) if name.endswith("bias")}
        assert left == {"mlm/bias" if options.get("tie_word_embeddings", True) else "mlm/vocab/bias"}
        assert names(small(biases=False, **options)) < names(small(**options))


def test_encoder_layers_alone_may_lack_biases() -> None:
    gone = names(small()) - names(small(block_biases=False))
    of_block = ("attention/query", "attention/key", "attention/value", "attention/out", "ffn/in", "ffn/out")
    assert gone == {f"block_{layer}/{part}/bias" for layer in range(2) for part in of_block}


def test_initial_scale() -> None:
    params = fresh_params(small(init_scale=0.5, vocab_size=2000))
    for leaf in (params["token_embedding"], params["block_0"]["ffn"]["in"]["kernel"]):
        assert float(leaf.std()) == pytest.approx(0.5, rel=0.15)


# What compares the sentences of a pair.


def test_compared_means() -> None:
    x_btd = jax.random.normal(KEY, (1, 6, 4))
    segments_bt, sequences_bt = jnp.array([[0, 0, 1, 0, 1, 0]]), jnp.array([[1, 1, 1, 2, 2, 0]])
    found = jax.jit(compared, static_argnames="num_sequences")(x_btd, segments_bt, sequences_bt, num_sequences=3)
    x_btd, found = np.asarray(x_btd), np.asarray(found)
    for sequence, (first, second) in enumerate([((0, 1), (2,)), ((3,), (4,))]):
        a, b = (x_btd[0, list(tokens)].mean(0) for tokens in (first, second))
        np.testing.assert_allclose(found[0, sequence], np.concatenate((a * b, np.abs(a - b), a + b)), atol=1e-6)
    np.testing.assert_array_equal(found[0, 2], np.zeros(12))


# All of them at once.

EVERY = {
    "modern": {"norm": "pre", "norm_kind": "rms", "hidden_act": "geglu", "positions": "rotary", "biases": False},
    "shared": {"embedding_size": 8, "share_layers": True, "relative_attention_bias": True},
    "compared": {"nsp_features": "pair", "hidden_act": "swiglu"},
}


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
def test_padding_and_neighbours_change_nothing(options: dict[str, Any]) -> None:
    config = small(**options)
    params = drawn_params(Bert(config))
    tokens_bt, segments_bt, positions_bt, sequences_bt = inputs()
    predictions_bp, cls_bk = jnp.full((B, 1), 2), jnp.zeros((B, 1), jnp.int32)
    apply = jax.jit(Bert(config).apply)
    alone = apply({"params": params}, tokens_bt, segments_bt, positions_bt, sequences_bt, predictions_bp, cls_bk)

    def doubled(x_bt: jax.Array, other_bt: jax.Array) -> jax.Array:
        return jnp.concatenate((x_bt, other_bt), axis=1)

    others = (inputs(seed=1)[0], 1 - segments_bt, positions_bt, 2 * sequences_bt)
    cls_b2 = jnp.concatenate((cls_bk, cls_bk + T), axis=1)
    rows = [doubled(*pair) for pair in zip((tokens_bt, segments_bt, positions_bt, sequences_bt), others, strict=True)]
    packed = apply({"params": params}, *rows, predictions_bp, cls_b2)
    np.testing.assert_allclose(packed[0], alone[0], atol=1e-5)
    np.testing.assert_allclose(packed[1][:, 0], alone[1][:, 0], atol=1e-5)


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
def test_scanned_layers_are_the_same(options: dict[str, Any]) -> None:
    config = small(**options)
    params = drawn_params(Bert(config))
    for how in ({"scan_layers": True}, {"remat": True}):
        other = encoded(Bert(config, **how), params, *inputs())
        np.testing.assert_allclose(other, encode(config, params, *inputs()), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_head_for_labels_tells_the_same_of_packed_texts_and_of_their_vectors(pooling: Any) -> None:
    """And its pooler is what its settings say: an activation, then a norm."""
    c = small(biases=False, classifier_bias=True, pooler_act="relu", pooler_norm=True, classifier_pooling=pooling)
    model = SequenceClassifier(Bert(c), 3)
    params = jax.tree.map(lambda leaf: 10 * leaf, drawn_params(model))
    assert {*params["pooler"], *params["classifier"]} == {"kernel", "norm", "bias"}
    rows, others = inputs(), inputs(seed=1)
    packed = [jnp.concatenate((x_bt[:1], x_bt[1:]), 1) for x_bt in rows]
    packed[3] = jnp.repeat(jnp.array([[1, 2]]), T, 1)
    cls_bk = jnp.array([[0, T]])
    apply = jax.jit(model.apply)
    logits_1kc = apply({"params": params}, *packed, cls_bk)
    beside = [packed[0].at[:, T:].set(others[0][1]), *packed[1:]]
    np.testing.assert_array_equal(apply({"params": params}, *beside, cls_bk)[:, 0], logits_1kc[:, 0])
    encoded_btd = encode(c, params, *rows)
    vectors_b1d = pool((pooling,), encoded_btd, rows[2], rows[3], num_sequences=1)
    of_head = {part: params[part] for part in ("pooler", "classifier")}
    np.testing.assert_allclose(Labelled(of_head, c, 3)(vectors_b1d)[:, 0], logits_1kc[0], atol=1e-5)
    hidden_bd = jax.nn.relu(vectors_b1d[:, 0] @ params["pooler"]["kernel"])
    normed_bd = (hidden_bd - hidden_bd.mean(-1, keepdims=True)) / hidden_bd.std(-1, keepdims=True)
    last = params["classifier"]
    expected_bc = (normed_bd * params["pooler"]["norm"]["scale"][None]) @ last["kernel"] + last["bias"][None]
    np.testing.assert_allclose(logits_1kc[0], expected_bc, atol=1e-3)


# Segments.


def test_with_one_row_all_tokens_share_it_and_with_none_there_is_no_table() -> None:
    assert names(small()) - names(small(token_types=0)) == {"segment_embedding"}
    tokens_bt, segments_bt, *rest = inputs()
    table_rd = jax.random.normal(KEY, (2, 16))
    params = drawn_params(Bert(small(token_types=0)))

    def embedded(rows: int, segments_bt: jax.Array) -> jax.Array:
        model = Bert(small(token_types=rows))
        there = params | ({"segment_embedding": table_rd[:rows]} if rows else {})
        embed = lambda bert: bert.embeddings(tokens_bt, segments_bt, rest[0], train=False)  # noqa: E731
        return jax.jit(functools.partial(model.apply, method=embed))({"params": there})

    np.testing.assert_array_equal(embedded(1, segments_bt), embedded(2, 0 * segments_bt))
    assert np.abs(embedded(2, segments_bt) - embedded(1, segments_bt)).max() > 0.1
    assert np.abs(embedded(0, segments_bt) - embedded(1, segments_bt)).max() > 0.1
