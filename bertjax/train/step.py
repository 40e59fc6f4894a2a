"""The training step: one pure function of state and batch, jitted with shardings over every device."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from bertjax.models.parts import joined
from bertjax.objectives.metrics import Mean, Metrics
from bertjax.objectives.objective import Bound, Objective, Params
from bertjax.parallel.sharding import by_name, by_rows, replicated
from bertjax.train.state import Health, TrainState, state_template

TrainStep = Callable[[TrainState, Any, ArrayLike], tuple[TrainState, Metrics]]
_Learned = tuple[Params, Any, Params | None]  # parameters, the optimiser's state, the parameters' average

_RECENT = 0.98  # what a loss counts for in the recent mean, from step to step: of the last 50 or so


def train_step(
    state: TrainState,
    batch: Any,
    seed: ArrayLike,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    gradient_accumulation_steps: int = 1,
    ema_decay: float | None = None,
) -> tuple[TrainState, Metrics]:
    """Makes one update; returns the metrics of the batch before it. Without finite losses and gradients none is made.

    Args:
      batch: a NamedTuple of arrays whose first axis is the rows, of the objective's kind.
      seed: of dropout, uint32; each step folds its number into the key.
      schedule: the optimizer's own learning rate, to be reported.
      gradient_accumulation_steps: parts the batch is computed in, which divide its rows.
      ema_decay: decay of the parameters' average, if the state has one.
    """
    dropout_key = jax.random.fold_in(jax.random.key(seed), state.step)
    grads, metrics = gradients(
        objective, state.params, batch, dropout_key, gradient_accumulation_steps, frozen=state.frozen
    )
    norm = optax.tree.norm(grads)
    means = [metrics[name].total / jnp.maximum(metrics[name].weight, 1) for name in objective.loss_weights]
    loss = sum(means[1:], start=means[0])
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    told = jnp.stack([metrics[name].weight for name in objective.loss_weights]).any()
    health, rise = _update_health(state.health, loss, good, told)

    def update(learned: _Learned, grads: Params) -> _Learned:
        params, opt_state, average = learned
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        if average is not None and ema_decay is not None:
            average = _update_average(average, params, state.step + 1 - health.skipped_steps, ema_decay)
        return params, opt_state, average

    # A branch rather than a choice between old and new numbers: for that XLA copies the whole state on CPUs.
    learned = (state.params, state.opt_state, state.average)
    params, opt_state, average = jax.lax.cond(good, update, lambda learned, _: learned, learned, grads)
    rate = schedule(state.step - state.health.skipped_steps)
    of_step = {"gradient_norm": norm, "learning_rate": rate, "loss_rise": rise}
    of_step |= {"skipped_steps": health.skipped_steps, "skipped_in_a_row": health.skipped_in_a_row}
    metrics |= {name: Mean(jnp.float32(value), jnp.ones(())) for name, value in of_step.items()}
    return TrainState(state.step + 1, params, opt_state, health, average, state.frozen), metrics


def gradients(
    objective: Objective,
    params: Params,
    batch: Any,
    dropout_key: Array,
    gradient_accumulation_steps: int = 1,
    *,
    frozen: Params | None = None,
) -> tuple[Params, Metrics]:
    """Returns gradients of the weighted sum of the losses, each the mean over the whole batch, and the metrics.

    Args:
      gradient_accumulation_steps: parts that compute it, one after the other, if the objective can be cut; the
        gradients are the same.
      frozen: the model's other parameters, where it has some that no gradients are taken of.
    """
    counts = {name: jnp.maximum(count, 1) for name, count in objective.loss_counts(batch).items()}

    def share_of_loss(params: Params, part: Any, key: Array) -> tuple[Array, Metrics]:
        metrics = objective.metrics(joined(params, frozen), part, key)
        shares = [weight * metrics[name].total / counts[name] for name, weight in objective.loss_weights.items()]
        return sum(shares[1:], start=shares[0]), metrics

    def part_gradients(part: Any, key: Array) -> tuple[Params, Metrics]:
        return jax.grad(share_of_loss, has_aux=True)(params, part, key)

    if gradient_accumulation_steps == 1 or not objective.cut_by_step:
        return part_gradients(batch, dropout_key)
    # A part has every so-many-th row, so that its rows lie on all devices as the batch's do.
    parts = jax.tree.map(lambda x: x.reshape(-1, gradient_accumulation_steps, *x.shape[1:]).swapaxes(0, 1), batch)
    keys = jax.random.split(dropout_key, gradient_accumulation_steps)
    part = jax.tree.map(lambda x: x[0], parts)
    # Gradients are like the parameters, which saves tracing them once more.
    metrics = jax.eval_shape(share_of_loss, params, part, keys[0])[1]
    zeros = jax.tree.map(jnp.zeros_like, (params, metrics))

    def add_part(total: Any, part: tuple[Any, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, part_gradients(*part)), None

    return jax.lax.scan(add_part, zeros, (parts, keys))[0]


def _update_health(health: Health, loss: Array, good: Array, told: Array) -> tuple[Health, Array]:
    """The health after a step, and its loss as a multiple of the recent mean before it.

    That is 1 in the first step, and where nothing is told (had any weight), which says nothing of the mean.
    """
    total, weight = health.recent_loss
    rise = jnp.where((total > 0) & told, loss * weight / total, 1.0)
    recent = Mean(_RECENT * total + loss, _RECENT * weight + 1)
    recent = jax.tree.map(functools.partial(jnp.where, good & told), recent, health.recent_loss)
    return Health(health.skipped_steps + ~good, jnp.where(good, 0, health.skipped_in_a_row + 1), recent), rise


def _update_average(average: Params, params: Params, steps: Array, decay: float) -> Params:
    """The mean of the parameters after each of so many good steps, weighing `decay ** age`, these the last ones.

    It is what Adam's bias correction makes of a mean that began at 0 (Kingma and Ba 2015, section 3).
    """
    share = math.expm1(math.log(decay)) / jnp.expm1(steps * math.log(decay))
    return jax.tree.map(lambda mean, leaf: mean + share * (leaf - mean), average, params)


def compile_train_step(
    mesh: Mesh,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    gradient_accumulation_steps: int = 1,
    ema_decay: float | None = None,
    freeze_layers: int | None = None,
) -> TrainStep:
    """Jits `train_step` over the mesh: batches by rows, the state by name; the old state is given up.

    Args:
      objective: one made for this mesh.
      freeze_layers: as of the state.
    """

    def step(state: TrainState, batch: Any, seed: ArrayLike, constants: Params | None) -> tuple[TrainState, Metrics]:
        return train_step(
            state,
            batch,
            seed,
            objective=objective.holding(constants),
            optimizer=optimizer,
            schedule=schedule,
            gradient_accumulation_steps=gradient_accumulation_steps,
            ema_decay=ema_decay,
        )

    template = state_template(objective, optimizer, averaging=ema_decay is not None, freeze_layers=freeze_layers)
    places = by_name(template, mesh)
    inputs = (places, by_rows(mesh), replicated(mesh), by_name(objective.constants, mesh))
    program = jax.jit(step, in_shardings=inputs, out_shardings=(places, replicated(mesh)), donate_argnums=0)
    return Bound(program, objective.constants)
