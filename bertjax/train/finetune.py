"""A whole run of fine-tuning: labelled examples and a trained model in, a folder with one that tells labels out."""

import functools
import logging
import shlex
from collections.abc import Collection
from pathlib import Path

import jax
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.config.checks import as_type
from bertjax.data.prepare_task import PreparedTask, describe_task, prepare_task
from bertjax.errors import BertjaxError
from bertjax.evaluation.classification import count_guesses, describe_judgement, judge
from bertjax.models.bert import make_model
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import params_template
from bertjax.objectives.classification import classification_objective
from bertjax.parallel.process_group import Processes
from bertjax.parallel.sharding import rows_here
from bertjax.runs.folder import RunFolder
from bertjax.train.account import work_of
from bertjax.train.initial_state import from_folder
from bertjax.train.loop import Task
from bertjax.train.run import Course, Outcome, run
from bertjax.train.state import TrainState

_logger = logging.getLogger(__name__)


def finetune(config: Config, *, resume: bool = False, plot: bool = False, typed: Collection[str] = ()) -> Path:
    """Trains a model to tell labels, as the configuration's task section says, and returns the run's folder.

    It may be killed at any time: resumed, the run ends as if it never had been.

    Args:
      config: with a model to start from (init_from) and examples (task.train).
      resume: go on from the newest checkpoint of `config.run_dir`; from the beginning where there is none yet.
      plot: in a notebook, draw the losses as the run goes on.
      typed: keys such as model.num_layers that are not to give way to what `config.init_from` says, as a recipe's do.

    Raises:
      BertjaxError: examples, folder, configuration or checkpoint will not do; the message says why and what to do.
      KeyboardInterrupt: after Ctrl-C, when the last checkpoint is written.
      SystemExit: after SIGTERM or SIGUSR1, likewise, with code 0.
    """
    config = as_type(config, Config, "config")
    return run(config, course_of(config), resume=resume, plot=plot, typed=typed)


def course_of(config: Config) -> Course[PreparedTask]:
    """Returns what runs of the configuration's task do. Raises BertjaxError where that is no fine-tuning."""
    if config.task.kind == "pretrain":
        raise BertjaxError("task.kind=pretrain is what 'bertjax pretrain' does; give a recipe such as classify")
    return _COURSE


def finetuning_task(prepared: PreparedTask, mesh: Mesh) -> Task:
    """Returns the learning of prepared examples, over a mesh, as their configuration says."""
    config = prepared.config
    objective = classification_objective(
        _model(prepared, mesh), label_smoothing=config.task.label_smoothing, class_weights=prepared.class_weights
    )
    return Task(
        config,
        objective,
        prepared.train_batches,
        prepared.held_out_batches,
        mesh,
        initial_state=functools.partial(_initial_state, config, mesh),
        sequences="examples",
        work=lambda: work_of(config, prepared.train_batches),
    )


def _initial_state(config: Config, mesh: Mesh, state: TrainState) -> TrainState:
    # Another run's labels are others, though there may be as many.
    return state._replace(params=from_folder(config, mesh, state.params, anew=("classifier",)))


def _model(prepared: PreparedTask, mesh: Mesh, *, learning: bool = True) -> SequenceClassifier:
    bert = make_model(prepared.config.model, prepared.config.train, learning=learning).clone(mesh=mesh)
    return SequenceClassifier(bert, len(prepared.labels))


def _introduce(prepared: PreparedTask, mesh: Mesh) -> None:
    _logger.info(describe_task(prepared))
    template = params_template(_model(prepared, mesh))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(template))
    _logger.info(f"model:    {parameters:,} parameters, {prepared.config.train.steps:,} steps")


def _learned(folder: RunFolder, prepared: PreparedTask, mesh: Mesh, processes: Processes, state: TrainState) -> Outcome:
    rows = rows_here(prepared.held_out_batches.num_rows, mesh)
    batches = prepared.held_out_batches.first_epoch(rows.some)
    counts_cc = count_guesses(_model(prepared, mesh, learning=False), state.eval_params, batches, rows, mesh)
    return Outcome([f"held out: {describe_judgement(prepared.held_out.name, judge(counts_cc))}"])


def _what_next(folder: RunFolder) -> list[str]:
    name = shlex.quote(str(folder.path))
    return [
        f"losses drawn in {folder.loss_plot}; to tell the labels of other texts:",
        f"  bertjax predict {name} --input texts.csv --out predictions.csv",
    ]


_COURSE = Course("finetune", prepare_task, _introduce, finetuning_task, _learned, _what_next, reports=False)
