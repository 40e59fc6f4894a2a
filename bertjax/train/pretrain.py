"""A whole run of pretraining: text in, a folder with a trained encoder out."""

import functools
import logging
import shlex
from collections.abc import Collection
from pathlib import Path

from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.data.prepare import Prepared, describe, prepare
from bertjax.data.statistics.frequencies import word_counts
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.evaluation.learned import describe_guesses, describe_held_out
from bertjax.evaluation.report import HIDDEN, show_learned
from bertjax.models.bert import make_model, num_parameters
from bertjax.objectives.guesses import Look, hide_words
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.process_group import Processes
from bertjax.runs.checkpoints import reason_of
from bertjax.runs.folder import RunFolder
from bertjax.train.account import work_of
from bertjax.train.initial_state import initial_state
from bertjax.train.loop import Task
from bertjax.train.run import Course, Outcome, run
from bertjax.train.state import TrainState
from bertjax.train.teacher import check_vocabulary, read_teacher, with_teacher

_logger = logging.getLogger(__name__)

_EACH = 4  # of the hidden words that a report shows, one of so many is shown on a terminal


def pretrain(config: Config, *, resume: bool = False, plot: bool = False, typed: Collection[str] = ()) -> Path:
    """Trains as the configuration says and returns the run's folder.

    It may be killed at any time: resumed, the run ends as if it never had been.
    How it goes is logged at INFO, by the logger "bertjax".

    Args:
      resume: go on from the newest checkpoint of `config.run_dir`; from the beginning where there is none yet.
      plot: in a notebook, draw the losses as the run goes on.
      typed: keys such as model.num_layers that are not to give way to what `config.init_from` says, as a recipe's do.

    Raises:
      BertjaxError: text, folder, configuration or checkpoint will not do; the message says why and what to do.
      KeyboardInterrupt: after Ctrl-C, when the last checkpoint is written.
      SystemExit: after SIGTERM or SIGUSR1, likewise, with `ExitCode.STOPPED`.
    """
    return run(config, _COURSE, resume=resume, plot=plot, typed=typed)


def pretraining_task(prepared: Prepared, mesh: Mesh) -> Task:
    """Returns pretraining on a prepared text, over a mesh, as the text's configuration says."""
    config = prepared.config
    model = make_model(config.model, config.train).clone(mesh=mesh)
    objective = pretraining_objective(
        model, heads=config.data.heads, nsp_weight=config.train.nsp_weight, z_loss=config.train.z_loss
    )
    return Task(
        config,
        objective if prepared.teacher is None else with_teacher(objective, model, prepared.teacher, config),
        prepared.train_batches,
        prepared.held_out_batches,
        mesh,
        initial_state=functools.partial(initial_state, prepared, mesh),
        sequences=config.data.sequences,
        work=lambda: work_of(config, prepared.train_batches),
    )


def _prepare(config: Config, tokenizer: Tokenizer | None = None) -> Prepared:
    teacher = read_teacher(config)  # before the text, which may take minutes
    prepared = prepare(config, tokenizer)
    if teacher is None:
        return prepared
    check_vocabulary(teacher, prepared.tokenizer, prepared.config)
    return prepared._replace(teacher=teacher)


def _learned(folder: RunFolder, prepared: Prepared, mesh: Mesh, processes: Processes, state: TrainState) -> Outcome:
    """Asks the model, in which all processes take part; the first one has something to say afterwards."""
    config, tokenizer, held_out = prepared.config, prepared.tokenizer, prepared.held_out
    max_length = config.data.max_length
    look = Look(make_model(config.model, config.train), state.eval_params, mesh, tokenizer, max_length=max_length)
    hidden = hide_words(held_out, tokenizer, number=HIDDEN, max_length=max_length)
    guessed, evaluation = look.guesses(hidden), folder.metrics.evaluation(config.eval.best)
    shown = None
    if config.logging.report:
        try:
            shown = show_learned(
                look,
                hidden,
                guessed,
                config=config,
                held_out=held_out,
                batches=prepared.held_out_batches,
                counts_v=word_counts(prepared.train, tokenizer.vocab_size),
                evaluation=evaluation,
            )
        except Exception as error:  # whatever it is: the run has trained
            _logger.warning(f"the report cannot show what was learned ({reason_of(error)})")
    if not processes.first:
        return Outcome([], shown)
    lines = [describe_held_out(prepared, evaluation)] if evaluation else []
    return Outcome(lines + describe_guesses(hidden[::_EACH], guessed[::_EACH], tokenizer), shown)


def _introduce(prepared: Prepared, mesh: Mesh) -> None:
    config = prepared.config
    _logger.info(describe(prepared))
    parameters = num_parameters(config.model)
    _logger.info(f"model:    {parameters:,} parameters, vocabulary {config.model.vocab_size:,}")
    if prepared.teacher is not None:
        layers, size = prepared.teacher.config.num_layers, prepared.teacher.config.hidden_size
        _logger.info(f"teacher:  {config.distill.teacher}, {layers} layers, {size} hidden")
    parts = mesh.shape["tensor"]
    if (config.model.vocab_size or 0) % parts:
        _logger.info(
            f"NOTICE:   every device computes the whole vocabulary; a model.vocab_size divisible by {parts} is split"
        )


def _what_next(folder: RunFolder) -> list[str]:
    report = [f"report in {folder.report}, for a browser"] if folder.report.is_file() else []
    return [
        *report,
        f"losses drawn in {folder.loss_plot}; to encode with the model:",
        f'  bertjax encode {shlex.quote(folder.place)} "a crane is flying"',
    ]


_COURSE = Course("pretrain", _prepare, _introduce, pretraining_task, _learned, _what_next)
