"""A model's parameters: fresh ones, and their shapes."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


# Jitted: to trace a deep model takes half a second, and a run asks for its parameters' shapes several times.
@functools.partial(jax.jit, static_argnums=0)
def init_params(model: nn.Module, key: Array) -> dict[str, Any]:
    """Returns fresh parameters, a plain nested dict of float32 arrays.

    Args:
      model: a `Bert`, or another that has so many arrays of a batch as its NUM_INPUTS says.
      key: a `jax.random.key`; the same one gives the same parameters, bit for bit.
    """
    b1 = jnp.zeros((1, 1), jnp.int32)
    params: dict[str, Any] = model.init(key, *[b1] * model.NUM_INPUTS)["params"]
    return params


def fresh_params(model: Any) -> Callable[[Array], dict[str, Any]]:
    """Returns the function that makes fresh parameters, whole, from a key.

    Args:
      model: one that has a `Bert` under that name, which may be for a mesh.
    """
    return functools.partial(init_params, model.clone(bert=model.bert.clone(mesh=None)))


def params_template(model: nn.Module) -> dict[str, Any]:
    """Returns shapes and dtypes of the parameters; nothing is computed."""
    template: dict[str, Any] = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    return template
