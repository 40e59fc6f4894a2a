"""Fine-tuning on sentences whose words have tags."""

import functools
import logging
import shlex

import jax
from jax.sharding import Mesh

from bertjax.data.prepare_tagging import PreparedTagging, describe_tagging, prepare_tagging
from bertjax.evaluation.judgement import Judgement, as_learned, describe, values
from bertjax.evaluation.tagging import judge_tagger, make_tagger
from bertjax.models.parameters import params_template
from bertjax.objectives.objective import Params
from bertjax.objectives.tagging import tagging_objective
from bertjax.parallel.process_group import Processes
from bertjax.runs.folder import RunFolder
from bertjax.train.account import work_of
from bertjax.train.initial_state import from_folder
from bertjax.train.loop import Task
from bertjax.train.run import Course, Outcome
from bertjax.train.state import TrainState

_logger = logging.getLogger(__name__)


def tagging_task(prepared: PreparedTagging, mesh: Mesh) -> Task:
    """Returns the learning of prepared sentences, over a mesh, as their configuration says."""
    config = prepared.config
    objective = tagging_objective(
        make_tagger(config, prepared.tags, mesh, learning=True),
        label_smoothing=config.task.label_smoothing,
        class_weights=prepared.class_weights,
    )
    return Task(
        config,
        objective,
        prepared.train_batches,
        prepared.held_out_batches,
        mesh,
        initial_state=functools.partial(_initial_state, prepared, mesh),
        sequences="sentences",
        work=lambda: work_of(config, prepared.train_batches),
        figures=lambda params: values(_judgement(prepared, mesh, params)),
    )


def _initial_state(prepared: PreparedTagging, mesh: Mesh, state: TrainState) -> TrainState:
    # Another run's tags are others, though there may be as many.
    return state._replace(params=from_folder(prepared.config, mesh, state.params, anew=("classifier",)))


def _introduce(prepared: PreparedTagging, mesh: Mesh) -> None:
    _logger.info(describe_tagging(prepared))
    template = params_template(make_tagger(prepared.config, prepared.tags, mesh, learning=True))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(template))
    _logger.info(f"model:    {parameters:,} parameters, {prepared.config.train.steps:,} steps")


def _learned(
    folder: RunFolder, prepared: PreparedTagging, mesh: Mesh, processes: Processes, state: TrainState
) -> Outcome:
    judgement = _judgement(prepared, mesh, state.eval_params)
    return Outcome([f"held out: {describe(judgement)}"], as_learned(judgement), values(judgement))


def _judgement(prepared: PreparedTagging, mesh: Mesh, params: Params) -> Judgement:
    of_held_out = (prepared.held_out, prepared.held_out_batches, prepared.sentences)
    return judge_tagger(prepared.config, prepared.tags, *of_held_out, params, mesh)


def _what_next(folder: RunFolder) -> list[str]:
    name = shlex.quote(str(folder.path))
    return [
        f"losses drawn in {folder.loss_plot}; to tag other sentences:",
        f"  bertjax predict {name} --input sentences.conll --out tagged.conll",
    ]


COURSE = Course("finetune", prepare_tagging, _introduce, tagging_task, _learned, _what_next)
