"""The state of training, and how it begins."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from bertjax.objectives.metrics import Mean
from bertjax.objectives.objective import Objective, Params
from bertjax.parallel.sharding import by_name


class Health(NamedTuple):
    """Steps without finite losses so far, and the recent loss."""

    skipped_steps: Array  # int32, those that changed nothing, for their loss or gradients were not finite
    skipped_in_a_row: Array  # int32, of them, those since the last good step
    recent_loss: Mean  # the sum of the losses, over the good steps, the older the less


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Array  # int32, steps made so far, the skipped ones too
    params: Params
    opt_state: optax.OptState
    health: Health
    average: Params | None = None  # of the parameters over the good steps, the older the less, if asked for

    @property
    def eval_params(self) -> Params:
        """The parameters that are evaluated, encoded with and exported: the average where there is one."""
        return self.params if self.average is None else self.average


def init_state(
    objective: Objective, optimizer: optax.GradientTransformation, seed: int, *, averaging: bool = False
) -> TrainState:
    """Makes a fresh state. Jit it to make it on the devices.

    Args:
      averaging: keep an average of the parameters too.
    """
    params = objective.init(jax.random.key(seed))
    step, skipped, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))
    health = Health(skipped, in_a_row, Mean(jnp.zeros(()), jnp.zeros(())))
    average = jax.tree.map(jnp.zeros_like, params) if averaging else None
    return TrainState(step, params, optimizer.init(params), health, average)


def compile_init(
    mesh: Mesh, objective: Objective, optimizer: optax.GradientTransformation, seed: int, *, averaging: bool = False
) -> Callable[[], TrainState]:
    """Makes a program that makes a fresh state, spread over the mesh by name; no device ever holds more than its share.

    Args:
      averaging: keep an average of the parameters too.
    """
    places = by_name(state_template(objective, optimizer, averaging=averaging), mesh)
    init = functools.partial(init_state, objective, optimizer, seed, averaging=averaging)
    return jax.jit(init, out_shardings=places)


def state_template(
    objective: Objective, optimizer: optax.GradientTransformation, *, averaging: bool = False
) -> TrainState:
    """Returns the shapes and dtypes of a state, as `init_state` would make it; nothing is computed.

    Args:
      averaging: with an average of the parameters.
    """
    return jax.eval_shape(functools.partial(init_state, objective, optimizer, 0, averaging=averaging))


def saved_trees(state: TrainState) -> dict[str, Any]:
    """Returns what a checkpoint holds of a state; its number is the step."""
    return {name: tree for name, tree in state._asdict().items() if name != "step" and tree is not None}
