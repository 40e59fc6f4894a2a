"""Fresh parameters are drawn on the host by few programs, and are what one program would draw."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers

from bertjax.config import BertConfig
from bertjax.models.bert import Bert, init_params
from bertjax.models.layers import embedding_initializer, linear_initializers
from bertjax.models.parameters import on_host

CONFIG = BertConfig(vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=48, max_position=40)


@pytest.mark.parametrize("init", ["bert", "textbook"])
def test_they_are_what_one_program_draws(init: str) -> None:
    """But for the last bit: XLA may round otherwise where it writes draws and their scales together."""
    model, key = Bert(dataclasses.replace(CONFIG, init=init)), jax.random.key(3)
    by_steps, by_one = init_params(model, key), jax.jit(lambda key: init_params(model, key))(key)
    assert jax.tree.structure(by_steps) == jax.tree.structure(by_one)
    for leaf, other in zip(jax.tree.leaves(by_steps), jax.tree.leaves(by_one), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=3e-7, atol=0)


def test_small_arrays_are_the_beginnings_of_one_draw() -> None:
    """Jax's own initialisers give the same numbers at each shape, and so at one above what small arrays share."""
    key = jax.random.key(1)
    kernel_init, _ = linear_initializers(CONFIG, fan_in=16)
    textbook = dataclasses.replace(CONFIG, init="textbook")
    uniform_init, _ = linear_initializers(textbook, fan_in=16)
    for shape in ((3, 5), (7,), (300, 300)):
        np.testing.assert_array_equal(kernel_init(key, shape), initializers.truncated_normal(0.02)(key, shape))
        uniform = jax.random.uniform(key, shape, jnp.float32, -0.25, 0.25)
        np.testing.assert_array_equal(uniform_init(key, shape), uniform)
        np.testing.assert_array_equal(embedding_initializer(textbook)(key, shape), jax.random.normal(key, shape))


def test_a_deeper_model_compiles_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    """The programs of equal shapes are shared; in one program each draw is written out."""

    def compiled(layers: int) -> int:
        caplog.clear()
        with jax.log_compiles():
            init_params(Bert(dataclasses.replace(CONFIG, num_layers=layers, hidden_size=24)), jax.random.key(0))
        return sum("Finished XLA compilation" in record.getMessage() for record in caplog.records)

    assert compiled(2) > 0
    assert compiled(3) == 0


def test_steps_that_nothing_needs_are_left_out() -> None:
    def make(x: jax.Array) -> dict[str, jax.Array]:
        jnp.linalg.inv(x)
        return {"sum": x.sum(), "zeros": jnp.zeros(3)}

    made = on_host(make)(jnp.zeros((2, 2)))
    assert made["sum"] == 0 and made["zeros"].shape == (3,)
    assert {device.platform for device in made["sum"].devices()} == {"cpu"}
