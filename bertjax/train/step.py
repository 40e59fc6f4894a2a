"""The training step: one pure function of state and batch, jitted with shardings over every device."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from bertjax.data.batching.batch import Batch
from bertjax.models.bert import Bert, init_params
from bertjax.objectives.metrics import Mean, Metrics
from bertjax.objectives.pretraining import PLAIN_SUM, LossWeights, batch_metrics
from bertjax.parallel.sharding import by_name, by_rows, replicated

_RECENT = 0.98  # what a loss counts for in the recent mean, from step to step: of the last 50 or so


class Health(NamedTuple):
    """How the run has fared."""

    skipped_steps: Array  # int32, those that changed nothing, for their loss or gradients were not finite
    skipped_in_a_row: Array  # int32, of them, those since the last good step
    recent_loss: Mean  # MLM loss + NSP loss, over the good steps, the older the less


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Array  # int32, steps made so far, the skipped ones too
    params: dict[str, Any]
    opt_state: optax.OptState
    health: Health
    average: dict[str, Any] | None = None  # of the parameters over the good steps, the older the less, if asked for

    @property
    def eval_params(self) -> dict[str, Any]:
        """The parameters that are evaluated, encoded with and exported: the average where there is one."""
        return self.params if self.average is None else self.average


def init_state(
    model: Bert, optimizer: optax.GradientTransformation, seed: int, *, averaging: bool = False
) -> TrainState:
    """A fresh state."""
    params = init_params(model, jax.random.key(seed))
    step, skipped, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))
    health = Health(skipped, in_a_row, Mean(jnp.zeros(()), jnp.zeros(())))
    average = jax.tree.map(jnp.zeros_like, params) if averaging else None
    return TrainState(step, params, optimizer.init(params), health, average)


def init_on(
    mesh: Mesh, model: Bert, optimizer: optax.GradientTransformation, seed: int, *, averaging: bool = False
) -> TrainState:
    """A fresh state where `sharding.RULES` want it; no device ever holds more than its share."""
    places = by_name(state_template(model, optimizer, averaging=averaging), mesh)
    return jax.jit(functools.partial(init_state, model, optimizer, seed, averaging=averaging), out_shardings=places)()


def state_template(model: Bert, optimizer: optax.GradientTransformation, *, averaging: bool = False) -> TrainState:
    """Shapes and dtypes of a state; nothing is computed."""
    return jax.eval_shape(functools.partial(init_state, model, optimizer, 0, averaging=averaging))


def gradients(
    model: Bert,
    params: dict[str, Any],
    batch: Batch,
    dropout_key: Array,
    gradient_accumulation_steps: int,
    weights: LossWeights = PLAIN_SUM,
) -> tuple[dict[str, Any], Metrics]:
    """Gradients of the losses' sum, each the mean over the whole batch, however many parts compute it."""
    mlm_count = jnp.maximum(batch.mlm_weights_bp.sum(), 1)
    nsp_count = jnp.maximum(batch.nsp_weights_bk.sum(), 1)

    def share_of_loss(params: dict[str, Any], part: Batch, key: Array) -> tuple[Array, Metrics]:
        metrics = batch_metrics(model, params, part, key, z_loss=weights.z)
        mlm, nsp = metrics["mlm_loss"], metrics["nsp_loss"]
        return mlm.total / mlm_count + weights.nsp * nsp.total / nsp_count, metrics

    def part_gradients(part: Batch, key: Array) -> tuple[dict[str, Any], Metrics]:
        return jax.grad(share_of_loss, has_aux=True)(params, part, key)

    if gradient_accumulation_steps == 1:
        return part_gradients(batch, dropout_key)
    # Every accumulate-th row makes a part, so that a part's rows lie on all devices as the batch's do.
    parts = jax.tree.map(lambda x: x.reshape(-1, gradient_accumulation_steps, *x.shape[1:]).swapaxes(0, 1), batch)
    keys = jax.random.split(dropout_key, gradient_accumulation_steps)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(part_gradients, jax.tree.map(lambda x: x[0], parts), keys[0]))

    def add_part(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, part_gradients(*part)), None

    return jax.lax.scan(add_part, zeros, (parts, keys))[0]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Bert,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    seed: int,
    gradient_accumulation_steps: int = 1,
    weights: LossWeights = PLAIN_SUM,
    ema_decay: float | None = None,
) -> tuple[TrainState, Metrics]:
    """One update, and the metrics of the batch before it. Without a finite loss and gradients, nothing is updated."""
    dropout_key = jax.random.fold_in(jax.random.key(seed), state.step)
    grads, metrics = gradients(model, state.params, batch, dropout_key, gradient_accumulation_steps, weights)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    norm = optax.tree.norm(grads)
    mlm, nsp = metrics["mlm_loss"], metrics["nsp_loss"]
    loss = mlm.total / jnp.maximum(mlm.weight, 1) + nsp.total / jnp.maximum(nsp.weight, 1)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    params, opt_state = jax.tree.map(
        functools.partial(jnp.where, good), (params, opt_state), (state.params, state.opt_state)
    )
    rate = schedule(state.step - state.health.skipped_steps)
    health, rise = _judge(state.health, loss, good)
    average = state.average
    if average is not None and ema_decay is not None:
        average = _averaged(average, params, good, state.step + 1 - health.skipped_steps, ema_decay)
    of_step = {"gradient_norm": norm, "learning_rate": rate, "loss_rise": rise}
    of_step |= {"skipped_steps": health.skipped_steps, "skipped_in_a_row": health.skipped_in_a_row}
    metrics |= {name: Mean(jnp.float32(value), jnp.ones(())) for name, value in of_step.items()}
    return TrainState(state.step + 1, params, opt_state, health, average), metrics


def _judge(health: Health, loss: Array, good: Array) -> tuple[Health, Array]:
    """The health after a step, and its loss as a multiple of the recent mean before it: 1 in the first."""
    total, weight = health.recent_loss
    rise = jnp.where(total > 0, loss * weight / total, 1.0)
    recent = Mean(_RECENT * total + loss, _RECENT * weight + 1)
    recent = jax.tree.map(functools.partial(jnp.where, good), recent, health.recent_loss)
    return Health(health.skipped_steps + ~good, jnp.where(good, 0, health.skipped_in_a_row + 1), recent), rise


def _averaged(average: Any, params: Any, good: Array, steps: Array, decay: float) -> Any:
    """The mean of the parameters after each of so many good steps, weighing `decay ** age`, these the last ones.

    It is what Adam's bias correction makes of a mean that began at 0 (Kingma and Ba 2015, section 3).
    """
    share = jnp.where(good, math.expm1(math.log(decay)) / jnp.expm1(steps * math.log(decay)), 0)
    return jax.tree.map(lambda mean, leaf: jnp.where(good, mean + share * (leaf - mean), mean), average, params)


def compile_train_step(
    mesh: Mesh,
    model: Bert,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    seed: int,
    gradient_accumulation_steps: int = 1,
    weights: LossWeights = PLAIN_SUM,
    ema_decay: float | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """`train_step` jitted over the mesh: batches by rows, the state as `sharding.RULES` say, the old one given up.

    Args:
      schedule: the optimizer's own learning rate, to be reported.
    """
    model = model.clone(mesh=mesh)
    fixed = {
        "model": model,
        "optimizer": optimizer,
        "schedule": schedule,
        "seed": seed,
        "gradient_accumulation_steps": gradient_accumulation_steps,
    }
    fixed |= {"weights": weights, "ema_decay": ema_decay}
    places = by_name(state_template(model, optimizer, averaging=ema_decay is not None), mesh)
    return jax.jit(
        functools.partial(train_step, **fixed),
        in_shardings=(places, by_rows(mesh)),
        out_shardings=(places, replicated(mesh)),
        donate_argnums=0,
    )
