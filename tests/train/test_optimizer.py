"""Schedules have the values they say; each optimiser updates what it should, as its paper has it."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.config import BertConfig, OptimConfig
from bertjax.models.bert import Bert, init_params, params_template
from bertjax.train.optimizer import Rate, decay_mask, make_optimizer, make_schedule, muon_labels, rate_of

SMALL = BertConfig(vocab_size=9, hidden_size=4, num_layers=1, num_heads=1, intermediate_size=4, max_position=4)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 11: 1.0}),
        ("linear", {0: 0.25, 3: 1.0, 4: 1.0, 8: 0.5, 11: 0.125}),
        ("wsd", {0: 0.25, 3: 1.0, 4: 1.0, 9: 1.0, 10: 2 / 3, 11: 1 / 3}),
        ("cosine", {0: 0.25, 3: 1.0, 4: 1.0, 8: 0.5, 10: (1 + np.cos(np.pi * 6 / 8)) / 2}),
    ],
)
def test_schedules_at_named_updates(schedule: str, values: dict[int, float]) -> None:
    config = OptimConfig(schedule=schedule, warmup_steps=4, learning_rate=3.0, decay_share=0.25)
    rate = make_schedule(config, steps=12)
    for update, share in values.items():
        assert float(rate(update)) == pytest.approx(3 * share, rel=1e-6), update


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_no_update_is_wasted_on_a_rate_of_zero(schedule: str) -> None:
    for warmup, share in itertools.product((0, 1, 4, 5), (0.01, 0.5, 1.0)):
        rate = make_schedule(OptimConfig(schedule=schedule, warmup_steps=warmup, decay_share=share), steps=5)
        assert all(rate(update) > 0 for update in range(5))


def answers(tree: Any) -> dict[str, Any]:
    return {"/".join(step.key for step in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


LAYERS = ("attention/query", "attention/key", "attention/value", "attention/out", "ffn/in", "ffn/out")


def test_decay_is_for_matrices_and_tables() -> None:
    linears = [*(f"block_0/{name}" for name in LAYERS), "pooler", "nsp", "mlm/hidden"]
    norms = ["block_0/attention_norm", "block_0/ffn_norm", "embedding_norm", "mlm/norm"]
    expected = {f"{name}_embedding": True for name in ("token", "segment", "position")}
    expected |= {f"{name}/kernel": True for name in linears} | {f"{name}/bias": False for name in linears}
    expected |= {f"{name}/{leaf}": False for name in norms for leaf in ("scale", "bias")} | {"mlm/bias": False}
    assert answers(decay_mask(params_template(Bert(SMALL)))) == expected


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_the_nsp_head_may_have_a_rate_of_its_own(name: Any) -> None:
    params = init_params(Bert(SMALL), jax.random.key(0))
    grads = jax.tree.map(jnp.ones_like, params)
    plain, own = (
        OptimConfig(name, learning_rate=0.1, schedule="linear", nsp_learning_rate=rate) for rate in (None, 0.02)
    )
    updates = []
    for config in (plain, own):
        optimizer = make_optimizer(config, steps=4)
        state = optimizer.init(params)
        _, state = optimizer.update(grads, state, params)
        updates.append(answers(optimizer.update(grads, state, params)[0]))
    for path, step in updates[0].items():
        share = 0.2 if path.startswith(("nsp/", "pooler/")) else 1.0
        np.testing.assert_allclose(updates[1][path], share * step, rtol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon"])
def test_lower_layers_have_lower_rates(name: Any) -> None:
    """The heads' is the peak, each layer's a share of the one above; weight decay follows the rate."""
    shares = {"token_embedding": 0.125, "block_0": 0.25, "block_1": 0.5, "pooler": 1.0}
    params: dict[str, Any] = {part: {"ffn": {"kernel": jnp.eye(2) + 1}} for part in shares}
    params["token_embedding"] = jnp.eye(2) + 1
    updates = []
    for decay in (1.0, 0.5):
        optimizer = make_optimizer(OptimConfig(name, 0.1, layer_decay=decay, weight_decay=0.1), steps=4)
        updates.append(answers(jax.jit(optimizer.update)(params, optimizer.init(params), params)[0]))
    assert len(updates[0]) == 4
    for path, step in updates[0].items():
        np.testing.assert_allclose(updates[1][path], shares[path.split("/")[0]] * step, rtol=1e-5, err_msg=path)


@pytest.mark.parametrize(
    "name, schedule", [("adam", "constant"), ("adamw", "linear"), ("lamb", "cosine"), ("adamw", "wsd")]
)
def test_a_rate_that_is_an_input_changes_no_bit(name: Any, schedule: Any) -> None:
    how: dict[str, Any] = {"warmup_steps": 2, "layer_decay": 0.9, "clip_norm": 1.0}
    how["weight_decay"] = 0.0 if name == "adam" else 0.1
    config, steps = OptimConfig(name, 0.0037, schedule=schedule, **how), 6
    rng = np.random.default_rng(0)
    params = {part: {"kernel": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)} for part in ("block_0", "pooler")}

    def updated(params: Any, state: Any, rate: Rate | None) -> Any:
        updates, state = make_optimizer(config, steps, rate).update(params, state, params)
        return optax.apply_updates(params, updates), state, make_schedule(config, steps, rate)(state_count(state))

    def state_count(state: Any) -> Any:
        return next(leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.int32)

    fixed, given = jax.jit(lambda *now: updated(*now, None)), jax.jit(updated)
    one = other = (params, make_optimizer(config, steps).init(params))
    for _ in range(steps):
        *one, rate = fixed(*one)
        *other, same = given(*other, rate_of(config, steps))
        assert rate == same
    jax.tree.map(np.testing.assert_array_equal, one, other)


def update(config: OptimConfig, gradient: float) -> dict[str, jax.Array]:
    params = {"kernel": jnp.full((2, 2), 10.0), "bias": jnp.full(2, 10.0)}
    optimizer = make_optimizer(config, steps=10)
    return optimizer.update(jax.tree.map(lambda x: x * 0 + gradient, params), optimizer.init(params), params)[0]


def test_adamw_decays_only_what_the_mask_says() -> None:
    updates = update(OptimConfig(name="adamw", learning_rate=0.1, weight_decay=0.5), gradient=0.0)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 * 10)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_clipping_scales_long_gradients_to_the_norm() -> None:
    # eps dominates the root of the mean of squares, so that Adam's first update is the gradient over eps.
    config = OptimConfig(name="adam", learning_rate=1.0, eps=1e6, clip_norm=1.0)
    length = 6**0.5 * 100  # of six gradients of 100
    np.testing.assert_allclose(update(config, 100.0)["bias"], -100 / length / 1e6, rtol=1e-4)
    np.testing.assert_allclose(update(config, 0.1)["bias"], -0.1 / 1e6, rtol=1e-4)


def test_lamb_moves_matrices_by_the_rate_times_their_norm() -> None:
    """You et al. 2020, algorithm 2: the length of an update does not depend on that of its gradient."""
    for gradient in (1.0, 1e-3):
        updates = update(OptimConfig(name="lamb", learning_rate=0.1), gradient)
        np.testing.assert_allclose(updates["kernel"], -0.1 * 10, rtol=1e-5)
    decayed = update(OptimConfig(name="lamb", learning_rate=0.1, weight_decay=0.5), gradient=0.0)
    np.testing.assert_allclose(decayed["kernel"], -0.1 * 10, rtol=1e-5)
    np.testing.assert_array_equal(decayed["bias"], 0)


def test_lambs_trust_ratio_is_1_for_what_is_not_decayed_and_for_zeros() -> None:
    """As in the authors' code: their updates are Adam's, from the first step on and at any size of the parameter."""
    params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2), "scale": jnp.full(2, 10.0)}
    adam, lamb = (make_optimizer(OptimConfig(name=name, learning_rate=0.1), steps=10) for name in ("adam", "lamb"))
    states, rng = [adam.init(params), lamb.init(params)], np.random.default_rng(0)
    for step in range(5):
        gradients = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
        expected, states[0] = adam.update(gradients, states[0], params)
        updates, states[1] = lamb.update(gradients, states[1], params)
        for name in params if step == 0 else ("bias", "scale"):
            np.testing.assert_allclose(updates[name], expected[name], rtol=1e-6, err_msg=name)
        params = optax.apply_updates(params, updates)
    ratio = np.linalg.norm(updates["kernel"]) / np.linalg.norm(params["kernel"] - updates["kernel"])
    assert ratio == pytest.approx(0.1, rel=1e-5)


def test_lamb_goes_on_from_a_state_that_optaxs_own_has_saved() -> None:
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    of_optax = optax.lamb(make_schedule(OptimConfig(), 10), mask=decay_mask).init(params)
    ours = make_optimizer(OptimConfig(name="lamb"), steps=10).init(params)
    assert jax.tree.structure(ours) == jax.tree.structure(of_optax)


# Muon.


def test_muon_is_for_the_matrices_of_the_layers() -> None:
    config = dataclasses.replace(SMALL, hidden_act="geglu", norm="pre", tie_word_embeddings=False)
    labels = answers(muon_labels(params_template(Bert(config))))
    expected = {f"block_0/{name}/kernel" for name in (*LAYERS, "ffn/gate")}
    assert {name for name, label in labels.items() if label == "muon"} == expected
    others = {name for name, label in labels.items() if label == "adamw"}
    assert others == labels.keys() - expected
    tables = {f"{name}_embedding" for name in ("token", "segment", "position")}
    assert tables | {"pooler/kernel", "nsp/kernel", "mlm/hidden/kernel", "mlm/vocab/kernel"} < others


def two_updates(config: OptimConfig) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Parameters, and the second update of each, for random gradients."""
    sizes = dataclasses.replace(SMALL, hidden_size=16, intermediate_size=64)
    params = init_params(Bert(sizes), jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.5, params)
    optimizer, rng = make_optimizer(config, steps=10), np.random.default_rng(0)
    state, updates = optimizer.init(params), {}
    for _ in range(2):
        gradients = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
        updates, state = optimizer.update(gradients, state, params)
    return answers(params), answers(updates)


def test_muons_updates_are_orthogonal_and_the_rest_are_adamws() -> None:
    config = OptimConfig(learning_rate=1e-3, muon_learning_rate=0.25, warmup_steps=4)
    _, adamw = two_updates(dataclasses.replace(config, weight_decay=0.1))
    params, plain = two_updates(dataclasses.replace(config, name="muon"))
    _, decayed = two_updates(dataclasses.replace(config, name="muon", weight_decay=0.1))
    rate = 0.25 * 2 / 4  # of the second update
    for name, leaf in plain.items():
        if name.startswith("block_0") and name.endswith("kernel"):
            features_in, features_out = leaf.shape
            sizes = np.linalg.svd(leaf, compute_uv=False) / rate / max(1, features_out / features_in) ** 0.5
            assert 0.6 < sizes.min() and sizes.max() < 1.3, name
            np.testing.assert_allclose(decayed[name] - leaf, -rate * 0.1 * params[name], atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(decayed[name], adamw[name], err_msg=name)
