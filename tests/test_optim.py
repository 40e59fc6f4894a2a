"""Schedules have the values they say; decay and clipping touch what they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import BertConfig, OptimConfig
from bertjax.model import Bert, init_params
from bertjax.optim import decay_mask, make_optimizer, make_schedule


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 11: 1.0}),
        ("linear", {0: 0.25, 3: 1.0, 4: 1.0, 8: 0.5, 11: 0.125}),
        ("cosine", {0: 0.25, 3: 1.0, 4: 1.0, 8: 0.5, 10: (1 + np.cos(np.pi * 6 / 8)) / 2}),
    ],
)
def test_schedules_at_named_updates(schedule: str, values: dict[int, float]) -> None:
    rate = make_schedule(OptimConfig(schedule=schedule, warmup_steps=4, learning_rate=3.0), steps=12)
    for update, share in values.items():
        assert float(rate(update)) == pytest.approx(3 * share, rel=1e-6), update


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_no_update_is_wasted_on_a_rate_of_zero(schedule: str) -> None:
    for warmup in (0, 1, 5):
        rate = make_schedule(OptimConfig(schedule=schedule, warmup_steps=warmup), steps=5)
        assert all(rate(update) > 0 for update in range(5))


def test_decay_is_for_matrices_and_tables() -> None:
    config = BertConfig(vocab_size=9, hidden_size=4, num_layers=1, num_heads=1, intermediate_size=4, max_position=4)
    params = jax.eval_shape(lambda key: init_params(Bert(config), key), jax.random.key(0))
    answers = {
        "/".join(step.key for step in path): decays
        for path, decays in jax.tree_util.tree_leaves_with_path(decay_mask(params))
    }
    linears = ["attention/query", "attention/key", "attention/value", "attention/out", "ffn/in", "ffn/out"]
    linears = [*(f"block_0/{name}" for name in linears), "pooler", "nsp", "mlm/hidden"]
    norms = ["block_0/attention_norm", "block_0/ffn_norm", "embedding_norm", "mlm/norm"]
    expected = {f"{name}_embedding": True for name in ("token", "segment", "position")}
    expected |= {f"{name}/kernel": True for name in linears} | {f"{name}/bias": False for name in linears}
    expected |= {f"{name}/{leaf}": False for name in norms for leaf in ("scale", "bias")} | {"mlm/bias": False}
    assert answers == expected


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
