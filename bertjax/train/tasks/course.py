"""The course of a run that learns from examples of some kind: what all fine-tuning has in common."""

import logging
import shlex
from collections.abc import Callable, Collection
from typing import Generic, NamedTuple, Protocol, TypeVar

import jax
from jax.sharding import Mesh

from bertjax.evaluation.judgement import Judgement, as_learned, describe, values
from bertjax.objectives.objective import BatchStream, Objective, Params
from bertjax.parallel.process_group import Processes
from bertjax.runs.folder import FITTED, Inputs, RunFolder
from bertjax.train.account import work_of
from bertjax.train.initial_state import from_folder
from bertjax.train.loop import Task
from bertjax.train.open_run import Prepare
from bertjax.train.run import Course, Outcome
from bertjax.train.state import TrainState

_logger = logging.getLogger(__name__)


class Prepared(Inputs, Protocol):
    """What is read of examples of any kind."""

    @property
    def train_batches(self) -> BatchStream:
        """Batches of the examples to learn from."""

    @property
    def held_out_batches(self) -> BatchStream:
        """Batches of those that are held out."""


P = TypeVar("P", bound=Prepared)


class Kind(NamedTuple, Generic[P]):
    """What sets one kind of examples apart from another, as plain functions."""

    prepare: Prepare[P]
    describe: Callable[[P], str]  # lines about what is learned from and held out
    objective: Callable[[P, Mesh], Objective]
    judge: Callable[[P, Mesh, Params], Judgement]  # of the parameters, over the mesh, on what is held out
    what_next: tuple[str, str]  # what the run is good for, and the arguments of bertjax, of which {} is its folder
    anew: Collection[str] = ("classifier",)  # parts that start fresh: another run's labels are others, if as many
    sequences: str = "examples"  # what people call them
    shows_table: bool = False  # whether a run's last lines tell the table of its figures too


def task_of(kind: Kind[P], prepared: P, mesh: Mesh) -> Task:
    """Returns the learning of prepared examples, over a mesh, as their configuration says."""
    config = prepared.config

    def initial_state(state: TrainState) -> TrainState:
        return state._replace(params=from_folder(config, mesh, state.params, anew=kind.anew))

    return Task(
        config,
        kind.objective(prepared, mesh),
        prepared.train_batches,
        prepared.held_out_batches,
        mesh,
        initial_state=initial_state,
        sequences=kind.sequences,
        work=lambda: work_of(config, prepared.train_batches),
        figures=lambda params: values(kind.judge(prepared, mesh, params)),
    )


def course_of(kind: Kind[P]) -> Course[P]:
    """Returns the course of runs that learn from such examples."""

    def introduce(prepared: P, mesh: Mesh) -> None:
        _logger.info(kind.describe(prepared))
        template = jax.eval_shape(kind.objective(prepared, mesh).init, jax.random.key(0))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(template))
        _logger.info(f"model:    {parameters:,} parameters, {prepared.config.train.steps:,} steps")

    def task(prepared: P, mesh: Mesh) -> Task:
        return task_of(kind, prepared, mesh)

    def learned(folder: RunFolder, prepared: P, mesh: Mesh, _: Processes, state: TrainState) -> Outcome:
        judgement = kind.judge(prepared, mesh, state.eval_params)
        for name in FITTED:
            if (value := judgement.detail.get(name)) is not None:
                folder.keep_fitted(name, value)
        lines = [f"held out: {describe(judgement)}", *(judgement.table if kind.shows_table else [])]
        return Outcome(lines, as_learned(judgement), values(judgement))

    def what_next(folder: RunFolder) -> list[str]:
        what, arguments = kind.what_next
        command = f"  bertjax {arguments.format(shlex.quote(folder.place))}"
        return [f"losses drawn in {folder.loss_plot}; {what}:", command]

    return Course("finetune", kind.prepare, introduce, task, learned, what_next)
