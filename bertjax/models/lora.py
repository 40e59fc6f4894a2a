"""Low-rank adaptation (LoRA, Hu et al. 2021, arXiv:2106.09685): kernels that stay, and small ones that are added.

The adapters are a part of the parameters, `lora`, in which each adapted kernel [i, o] has `a` [i, r] and `b` [r, o]
where it lies itself: `lora/block_0/attention/query/a`. The model knows nothing of them: it is given the sum.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from bertjax.config.lora import Kernels, LoraConfig
from bertjax.parallel.sharding import by_name

Params = dict[str, Any]

LORA = "lora"

_ADAPTED: dict[Kernels, str] = {
    "query+value": r"block_\d+/attention/(query|value)",
    "attention": r"block_\d+/attention/\w+",
    "all": r"block_\d+/(attention|ffn)/\w+",
}


def with_adapters(params: Params, config: LoraConfig, key: Array) -> Params:
    """Returns a model's parameters with fresh adapters, if there are to be any; what they add is 0.

    Args:
      key: a `jax.random.key`.
    """
    if config.rank is None:
        return params
    linears = [path for path in _linears(params, "") if re.fullmatch(_ADAPTED[config.kernels], path)]
    adapters: Params = {}
    for path, its_key in zip(linears, jax.random.split(key, max(1, len(linears))), strict=True):
        *above, name = path.split("/")
        where, linear = adapters, params
        for part in above:
            where, linear = where.setdefault(part, {}), linear[part]
        features_in, features_out = linear[name]["kernel"].shape
        a = jax.random.normal(its_key, (features_in, config.rank)) * features_in**-0.5
        where[name] = {"a": a, "b": jnp.zeros((config.rank, features_out))}
    return params | {LORA: adapters}


def merged(params: Params, config: LoraConfig) -> Params:
    """Returns the parameters of the model alone, in which each adapted kernel is kernel + alpha / rank * a @ b."""
    if config.rank is None:
        return params
    return _merged({name: part for name, part in params.items() if name != LORA}, params[LORA], config)


def merge_over(mesh: Mesh, plain: Params, config: LoraConfig) -> Callable[[Params], Params]:
    """Returns a program of `merged` whose results lie over a mesh by name.

    Args:
      plain: shapes and dtypes of the model's own parameters.
    """
    if config.rank is None:
        return lambda params: params
    return jax.jit(functools.partial(merged, config=config), out_shardings=by_name(plain, mesh))


def _merged(params: Params, adapters: Params, config: LoraConfig) -> Params:
    if "a" in adapters:
        assert config.rank is not None
        added = jnp.matmul(adapters["a"], adapters["b"], precision="highest")
        return params | {"kernel": params["kernel"] + config.alpha / config.rank * added}
    return params | {name: _merged(params[name], part, config) for name, part in adapters.items()}


def _linears(params: Params, path: str) -> list[str]:
    """The paths of what has a kernel."""
    if "kernel" in params:
        return [path]
    inner = [(f"{path}/{name}" if path else name, part) for name, part in params.items() if isinstance(part, dict)]
    return [found for name, part in inner for found in _linears(part, name)]
