"""The state of training, and how it begins."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from bertjax.models.parameters import on_host
from bertjax.models.parts import joined, split
from bertjax.objectives.metrics import Mean
from bertjax.objectives.objective import Objective, Params
from bertjax.parallel.sharding import by_name, place_params, placed


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
    frozen: Params | None = None  # parameters that stay as they are, if some do; the others are in `params`

    @property
    def all_params(self) -> Params:
        """Returns the parameters of the whole model."""
        return joined(self.params, self.frozen)

    @property
    def eval_params(self) -> Params:
        """The parameters that are evaluated, encoded with and exported: the average where there is one."""
        return joined(self.params if self.average is None else self.average, self.frozen)


def init_state(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    seed: ArrayLike,
    *,
    averaging: bool = False,
    freeze_layers: int | None = None,
) -> TrainState:
    """Makes a fresh state; `make_init` is how a run makes it on its devices.

    Args:
      seed: of the parameters, uint32.
      averaging: keep an average of the parameters too.
      freeze_layers: as of `split`.
    """
    params = objective.init(jax.random.key(seed))
    return _begin(params, optimizer, averaging=averaging, freeze_layers=freeze_layers)


def _begin(
    params: Params, optimizer: optax.GradientTransformation, *, averaging: bool, freeze_layers: int | None
) -> TrainState:
    params, frozen = split(params, freeze_layers)
    step, skipped, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))
    health = Health(skipped, in_a_row, Mean(jnp.zeros(()), jnp.zeros(())))
    average = jax.tree.map(jnp.zeros_like, params) if averaging else None
    return TrainState(step, params, optimizer.init(params), health, average, frozen)


def with_params(state: TrainState, params: Params) -> TrainState:
    """Returns the state with these parameters, those of the whole model, in place of its own."""
    if state.frozen is None:
        return state._replace(params=params)
    return state._replace(params=_those_in(state.params, params), frozen=_those_in(state.frozen, params))


def _those_in(some: Params, params: Params) -> Params:
    return {
        name: _those_in(part, params[name]) if isinstance(part, dict) else params[name] for name, part in some.items()
    }


def make_init(
    mesh: Mesh,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    averaging: bool = False,
    freeze_layers: int | None = None,
) -> Callable[[ArrayLike], TrainState]:
    """Returns the function that makes a fresh state of a seed, spread over the mesh by name, as `init_state` would.

    No device ever holds more than its share; the host holds the parameters whole.

    Args:
      averaging, freeze_layers: as of `init_state`.
    """
    how: Any = {"averaging": averaging, "freeze_layers": freeze_layers}
    template = state_template(objective, optimizer, **how)
    draw = on_host(objective.init)

    def init(seed: ArrayLike) -> TrainState:
        params = place_params(draw(jax.random.key(jnp.asarray(seed, jnp.uint32))), mesh)
        # Zeros like an array that is spread over devices are spread likewise.
        return jax.tree.map(placed, _begin(params, optimizer, **how), by_name(template, mesh))

    return init


def state_template(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    averaging: bool = False,
    freeze_layers: int | None = None,
) -> TrainState:
    """Returns the shapes and dtypes of a state, as `init_state` would make it; nothing is computed.

    Args:
      averaging, freeze_layers: as of `init_state`.
    """
    params = jax.eval_shape(objective.init, jax.random.key(0))  # which JAX traces once for all who ask
    how: Any = {"averaging": averaging, "freeze_layers": freeze_layers}
    return jax.eval_shape(functools.partial(_begin, optimizer=optimizer, **how), params)


def saved_trees(state: TrainState) -> dict[str, Any]:
    """Returns what a checkpoint holds of a state; its number is the step."""
    return {name: tree for name, tree in state._asdict().items() if name != "step" and tree is not None}
