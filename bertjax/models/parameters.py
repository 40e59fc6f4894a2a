"""A model's parameters: fresh ones, and their shapes."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun


def init_params(model: nn.Module, key: Array) -> dict[str, Any]:
    """Returns fresh parameters, a plain nested dict of float32 arrays.

    Args:
      model: a `Bert`, or another that has so many arrays of a batch as its NUM_INPUTS says.
      key: a `jax.random.key`; the same one gives the same parameters, bit for bit.
    """
    init = functools.partial(_init_params, model)
    if isinstance(key, jax.core.Tracer):
        return init(key)
    params: dict[str, Any] = jax.tree.map(lambda leaf: jnp.array(np.asarray(leaf)), on_host(init)(key))
    return params


def _init_params(model: nn.Module, key: Array) -> dict[str, Any]:
    params: dict[str, Any] = _init_program(model, jax.ShapeDtypeStruct(key.shape, key.dtype))(key)
    return params


# To trace a deep model takes half a second, and a run asks for its parameters' shapes several times.
@functools.lru_cache(maxsize=64)
def _init_program(model: nn.Module, of: jax.ShapeDtypeStruct) -> Callable[[Array], Any]:
    b1 = jnp.zeros((1, 1), jnp.int32)
    return _steps_of(lambda key: model.init(key, *[b1] * model.NUM_INPUTS)["params"], of)


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


def on_host(make: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """Returns the function that computes what `make` does on the host, step by step: equal shapes share programs.

    For fresh parameters. As one program for an accelerator XLA writes out every draw: to compile that for BERT-base
    took 24 s on an H200, and 53 beside three other compilations. And so a seed gives the same ones on every kind of
    device. Steps that nothing of the result needs are left out.

    Args:
      make: of an array, a tree of arrays.
    """

    steps = functools.cache(functools.partial(_steps_of, make))

    def run(array: Array) -> Any:
        compute = steps(jax.ShapeDtypeStruct(array.shape, array.dtype))
        with jax.ensure_compile_time_eval(), jax.default_device(_host()):  # while something else is traced, too
            return compute(array)

    return run


def _steps_of(make: Callable[[Array], Any], of: jax.ShapeDtypeStruct) -> Callable[[Array], Any]:
    """Returns the function that does what `make` does of such an array, step by step, and no more than is needed."""
    closed, shapes = jax.make_jaxpr(make, return_shape=True)(of)
    compute, tree = jaxpr_as_fun(_pruned(closed)), jax.tree.structure(shapes)
    return lambda array: jax.tree.unflatten(tree, compute(array))


def _host() -> jax.Device | None:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None


def _pruned(closed: ClosedJaxpr) -> ClosedJaxpr:
    needed = {var for var in closed.jaxpr.outvars if not isinstance(var, Literal)}
    eqns = []
    for eqn in reversed(closed.jaxpr.eqns):
        if not needed.isdisjoint(eqn.outvars):
            needed.update(var for var in eqn.invars if not isinstance(var, Literal))
            eqns.append(eqn)
    return closed.replace(jaxpr=closed.jaxpr.replace(eqns=eqns[::-1]))
