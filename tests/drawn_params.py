"""Parameters for tests that ask nothing of how they are drawn: the real ones take XLA seconds to compile."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bertjax.models.parameters import params_template


def drawn_params(model: nn.Module, seed: int = 0) -> dict[str, Any]:
    """Returns parameters distributed about as fresh ones are: norms 1, the others as `config.init` has them."""
    config = getattr(model, "bert", model).config
    rng = np.random.default_rng(seed)

    def drawn(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        kind = path[-1].key
        if kind == "scale":
            numbers = np.ones(leaf.shape)
        elif config.init == "bert":
            numbers = (kind != "bias") * config.init_scale * rng.normal(size=leaf.shape)
        elif kind in ("kernel", "bias"):
            numbers = rng.uniform(-1, 1, leaf.shape) * leaf.shape[0] ** -0.5
        else:
            numbers = rng.normal(size=leaf.shape)
        return jax.numpy.asarray(numbers, leaf.dtype)

    return jax.tree.map_with_path(drawn, params_template(model))
