"""Programs for the devices of a mesh. Each is compiled when it is first called."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from bertjax.config import Config, LoraConfig
from bertjax.evaluation.evaluate import EvalStep, compile_eval_step
from bertjax.models.lora import merge_over, merged, with_adapters
from bertjax.objectives.metrics import Metrics
from bertjax.objectives.objective import Bound, Objective, Params
from bertjax.parallel.sharding import by_name, by_rows, replicated
from bertjax.storage.memory import give_back_freed
from bertjax.train.optimizer import Rate, make_optimizer, make_schedule, rate_of
from bertjax.train.state import TrainState, make_init, state_template
from bertjax.train.step import TrainStep, compile_train_step, train_step


class Programs(NamedTuple):
    """The programs of a run, and of those that differ from it in the seed alone."""

    train_step: Callable[[int], TrainStep]  # of a run of so many steps
    eval_step: EvalStep
    init: Callable[[ArrayLike], TrainState]  # makes a fresh state of a seed
    template: TrainState  # shapes and dtypes of a state
    plain: Callable[[Params], Params]  # gives the model's parameters of all those of a state, which may have adapters


MakePrograms = Callable[[Config, Objective, Mesh], Programs]


def make_programs(config: Config, objective: Objective, mesh: Mesh) -> Programs:
    """Makes the programs that train an objective as a configuration says.

    Args:
      objective: one made for this mesh.
    """
    merge = merge_over(mesh, jax.eval_shape(objective.init, jax.random.key(0)), config.lora)
    objective = _adapted(objective, config.lora)

    def plain(params: Params) -> Params:
        return {part: leaf for part, leaf in merge(params).items() if part not in objective.aside}

    how: Any = {"averaging": config.optim.ema_decay is not None, "freeze_layers": config.optim.freeze_layers}

    @functools.cache
    def train_step(steps: int) -> TrainStep:
        return compile_train_step(
            mesh,
            objective,
            make_optimizer(config.optim, steps),
            make_schedule(config.optim, steps),
            gradient_accumulation_steps=config.train.parts,
            ema_decay=config.optim.ema_decay,
            freeze_layers=config.optim.freeze_layers,
        )

    optimizer = make_optimizer(config.optim, config.train.steps)
    return Programs(
        train_step,
        compile_eval_step(mesh, objective),
        make_init(mesh, objective, optimizer, **how),
        state_template(objective, optimizer, **how),
        plain,
    )


def _adapted(objective: Objective, config: LoraConfig) -> Objective:
    """The same objective of parameters with adapters, if there are to be any."""
    if config.rank is None:
        return objective

    def init(key: Array) -> Params:
        return with_adapters(objective.init(key), config, jax.random.fold_in(key, 1))

    def metrics(params: Params, batch: Any, key: Array | None, **constants: Any) -> Metrics:
        return objective.metrics(merged(params, config), batch, key, **constants)

    return objective._replace(init=init, metrics=metrics)


def compile_ahead(train_step: Any, *arguments: Any) -> None:
    """Compiles a step for these arguments before it is called, so that the compiler's memory is free again by then."""
    train_step.lower(*arguments).compile()
    give_back_freed()


def _compile_by_rate(config: Config, objective: Objective, mesh: Mesh, steps: int) -> Any:
    """Jits the training step as `compile_train_step` does, with the learning rate as one argument more."""
    objective, optim = _adapted(objective, config.lora), config.optim
    how: Any = {"averaging": optim.ema_decay is not None, "freeze_layers": optim.freeze_layers}
    places = by_name(state_template(objective, make_optimizer(optim, steps), **how), mesh)

    def step(state: TrainState, batch: Any, seed: ArrayLike, rate: Rate) -> tuple[TrainState, Metrics]:
        return train_step(
            state,
            batch,
            seed,
            objective=objective,
            optimizer=make_optimizer(optim, steps, rate),
            schedule=make_schedule(optim, steps, rate),
            gradient_accumulation_steps=config.train.parts,
            ema_decay=optim.ema_decay,
        )

    inputs = (places, by_rows(mesh), replicated(mesh), replicated(mesh))
    return jax.jit(step, in_shardings=inputs, out_shardings=(places, replicated(mesh)), donate_argnums=0)


def shared_programs(*, by_rate: bool = False) -> MakePrograms:
    """Returns `make_programs` for runs in turn, which gives what it made for the one before to one that is alike.

    They may differ in the seed, in where they are, and in when they end, are evaluated and saved.

    Args:
      by_rate: they may differ in optim.learning_rate too, unless other rates are given in proportion to it.
    """
    made: dict[Any, Programs] = {}
    steps_by_rate: dict[Any, Callable[[int], Any]] = {}

    def make(config: Config, objective: Objective, mesh: Mesh) -> Programs:
        train = dataclasses.replace(config.train, steps=1, epochs=None, batch_warmup_steps=0)
        # In words: a section may hold lists.
        scales = by_rate and config.optim.name != "muon" and config.optim.nsp_learning_rate is None
        optim = dataclasses.replace(config.optim, learning_rate=1.0) if scales else config.optim
        key = (repr((config.task, config.data, config.model, optim, config.lora, train)), mesh)
        if key not in made:
            made.clear()
            steps_by_rate.clear()
            made[key] = make_programs(config, objective, mesh)
            steps_by_rate[key] = functools.cache(functools.partial(_compile_by_rate, config, objective, mesh))
        if not scales:
            return made[key]
        step_of = steps_by_rate[key]
        return made[key]._replace(train_step=lambda steps: Bound(step_of(steps), rate_of(config.optim, steps)))

    return make
