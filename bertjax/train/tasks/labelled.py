"""Fine-tuning on labelled texts and pairs: labels (classify), a number (score), or how well they match (rerank)."""

import functools
import logging
import shlex

import jax
from jax.sharding import Mesh

from bertjax.data.prepare_task import PreparedTask, describe_task, prepare_task
from bertjax.data.targets import Labels
from bertjax.evaluation.judgement import Judgement, as_learned, describe, values
from bertjax.evaluation.labelled import judge, make_task_model
from bertjax.models.parameters import params_template
from bertjax.objectives.classification import classification_objective
from bertjax.objectives.objective import Objective, Params
from bertjax.objectives.scoring import scoring_objective
from bertjax.parallel.process_group import Processes
from bertjax.runs.folder import RunFolder
from bertjax.train.account import work_of
from bertjax.train.initial_state import from_folder
from bertjax.train.loop import Task
from bertjax.train.run import Course, Outcome
from bertjax.train.state import TrainState

_logger = logging.getLogger(__name__)


def labelled_task(prepared: PreparedTask, mesh: Mesh) -> Task:
    """Returns the learning of prepared examples, over a mesh, as their configuration says."""
    config = prepared.config
    return Task(
        config,
        _objective(prepared, mesh),
        prepared.train_batches,
        prepared.held_out_batches,
        mesh,
        initial_state=functools.partial(_initial_state, prepared, mesh),
        sequences="examples",
        work=lambda: work_of(config, prepared.train_batches),
        figures=lambda params: values(_judgement(prepared, mesh, params)),
    )


def _objective(prepared: PreparedTask, mesh: Mesh) -> Objective:
    model, task = make_task_model(prepared.config, prepared.targets, mesh, learning=True), prepared.config.task
    if not isinstance(prepared.targets, Labels):
        return scoring_objective(model, "squared" if task.kind == "score" else "binary")
    return classification_objective(
        model,
        several=prepared.targets.several,
        label_smoothing=task.label_smoothing,
        class_weights=prepared.class_weights,
    )


def _initial_state(prepared: PreparedTask, mesh: Mesh, state: TrainState) -> TrainState:
    # Another run's labels are others, though there may be as many.
    return state._replace(params=from_folder(prepared.config, mesh, state.params, anew=("classifier",)))


def _introduce(prepared: PreparedTask, mesh: Mesh) -> None:
    _logger.info(describe_task(prepared))
    template = params_template(make_task_model(prepared.config, prepared.targets, mesh, learning=True))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(template))
    _logger.info(f"model:    {parameters:,} parameters, {prepared.config.train.steps:,} steps")


def _learned(folder: RunFolder, prepared: PreparedTask, mesh: Mesh, processes: Processes, state: TrainState) -> Outcome:
    judgement = _judgement(prepared, mesh, state.eval_params)
    if (temperature := judgement.detail.get("temperature")) is not None:
        folder.keep_temperature(temperature)
    return Outcome([f"held out: {describe(judgement)}"], as_learned(judgement), values(judgement))


def _judgement(prepared: PreparedTask, mesh: Mesh, params: Params) -> Judgement:
    of_held_out = (prepared.held_out, prepared.held_out_batches, prepared.items)
    return judge(prepared.config, prepared.targets, *of_held_out, params, mesh)


def _what_next(folder: RunFolder) -> list[str]:
    name = shlex.quote(str(folder.path))
    return [
        f"losses drawn in {folder.loss_plot}; to tell what other texts have:",
        f"  bertjax predict {name} --input texts.csv --out predictions.csv",
    ]


COURSE = Course("finetune", prepare_task, _introduce, labelled_task, _learned, _what_next)
