"""A whole run of pretraining: text in, a folder with a trained encoder out."""

import dataclasses
import functools
import logging
import shlex
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from jax.sharding import Mesh

from bertjax.config import Config, DistributedConfig
from bertjax.config.checks import as_type
from bertjax.data.prepare import Prepared, describe
from bertjax.data.statistics.frequencies import word_counts
from bertjax.evaluation.learned import describe_guesses, describe_held_out
from bertjax.evaluation.report import HIDDEN, show_learned, write_report
from bertjax.models.bert import make_model, num_parameters
from bertjax.objectives.guesses import Look, hide_words
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.distributed import Agreement, joined
from bertjax.parallel.process_group import Processes
from bertjax.parallel.sharding import find_devices, make_mesh
from bertjax.runs.checkpoints import reason_of
from bertjax.runs.folder import RunFolder
from bertjax.runs.metrics import figures
from bertjax.runs.plots import LivePlot, check_notebook, plot_losses
from bertjax.runs.report import Learned
from bertjax.runs.signals import Stop, stopping_on_signals
from bertjax.train.account import account, work_of
from bertjax.train.initial_state import initial_state
from bertjax.train.loop import Task, fit
from bertjax.train.open_run import may_go_further, open_run, with_model_of_init
from bertjax.train.progress import Progress, describe_devices
from bertjax.train.state import TrainState

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
      SystemExit: after SIGTERM or SIGUSR1, likewise, with code 0.
    """
    config, resume = as_type(config, Config, "config"), as_type(resume, bool, "resume")
    if as_type(plot, bool, "plot"):
        check_notebook()
    with stopping_on_signals() as stop:
        with joined(config.distributed) as processes:
            # Who takes part is nothing of the run's own: it may go on with more or fewer.
            config = dataclasses.replace(config, distributed=DistributedConfig())
            finished = _train(config, processes, stop, resume=resume, plot=plot, typed=typed)
        if not finished:
            stop.leave()
    return Path(config.run_dir)


def _train(
    config: Config, processes: Processes, stop: Stop, *, resume: bool, plot: bool, typed: Collection[str]
) -> bool:
    """False: a signal stopped it."""
    began = time.monotonic()
    # Of several processes one may fail to write where the others do not: then they stop, as they cannot but part.
    on_failure = config.checkpoint.on_failure if processes.size == 1 else "stop"
    folder = RunFolder(
        config.run_dir, writes=processes.first, on_failure=on_failure, tensorboard=config.logging.tensorboard
    )
    config = with_model_of_init(config, folder, resume=resume, typed=typed)
    mesh = make_mesh(*config.mesh_sizes(len(find_devices())))
    stop.agree = stop.agree if processes.size == 1 else Agreement(mesh)
    processes.where = folder.how_to_go_on
    with open_run(folder, config, processes, resume=resume, typed=typed) as prepared, folder.writing():
        _introduce(prepared, mesh)
        task = pretraining_task(prepared, mesh)
        title = f"{folder.path.name}, on {prepared.train.name}"
        live = LivePlot(folder.metrics, title, task.objective.heads) if plot else None
        with stop.finishing():
            state, progress = fit(folder, task, processes=processes, stop=stop, began=began, plot=live)
            if processes.first and progress.first_seconds:  # a step was made
                # A signal leaves no time for it, nor does a run whose seconds are counted.
                measure = state is not None and prepared.config.logging.report
                told = account(*(prepared.config, prepared.train_batches, progress), began=began, measure=measure)
                folder.metrics.append_account(told)
            learned = None if state is None else _learned(folder, prepared, mesh, processes, state)
        if processes.first:
            plot_losses(folder.metrics.read(), folder.loss_plot, title, task.objective.heads)
            if learned is not None and prepared.config.logging.report:
                write_report(folder, prepared.config, learned.shown)
        _conclude(folder, task, progress, None if learned is None else learned.lines)
    return learned is not None


def pretraining_task(prepared: Prepared, mesh: Mesh) -> Task:
    """Returns pretraining on a prepared text, over a mesh, as the text's configuration says."""
    config = prepared.config
    model = make_model(config.model, config.train).clone(mesh=mesh)
    return Task(
        config,
        pretraining_objective(
            model, heads=config.data.heads, nsp_weight=config.train.nsp_weight, z_loss=config.train.z_loss
        ),
        prepared.train_batches,
        prepared.held_out_batches,
        mesh,
        initial_state=functools.partial(initial_state, prepared, mesh),
        sequences=config.data.sequences,
        work=lambda: work_of(config, prepared.train_batches),
    )


class _Learned(NamedTuple):
    """What a run says of its learning, on a terminal and in its report."""

    lines: list[str]
    shown: Learned | None


def _learned(folder: RunFolder, prepared: Prepared, mesh: Mesh, processes: Processes, state: TrainState) -> _Learned:
    """Asks the model, in which all processes take part; the first one has something to say afterwards."""
    config, tokenizer, held_out = prepared.config, prepared.tokenizer, prepared.held_out
    max_length = config.data.max_length
    look = Look(make_model(config.model, config.train), state.eval_params, mesh, tokenizer, max_length=max_length)
    hidden = hide_words(held_out, tokenizer, number=HIDDEN, max_length=max_length)
    guessed, evaluation = look.guesses(hidden), folder.metrics.newest_evaluation()
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
        return _Learned([], shown)
    lines = [describe_held_out(prepared, evaluation)] if evaluation else []
    return _Learned(lines + describe_guesses(hidden[::_EACH], guessed[::_EACH], tokenizer), shown)


def _introduce(prepared: Prepared, mesh: Mesh) -> None:
    config = prepared.config
    _logger.info(describe(prepared))
    parameters = num_parameters(config.model)
    _logger.info(f"model:    {parameters:,} parameters, vocabulary {config.model.vocab_size:,}")
    parts = mesh.shape["tensor"]
    if (config.model.vocab_size or 0) % parts:
        _logger.info(
            f"NOTICE:   every device computes the whole vocabulary; a model.vocab_size divisible by {parts} is split"
        )
    _logger.info(f"devices:  {describe_devices(mesh)}; folder: {config.run_dir}")


def _conclude(folder: RunFolder, task: Task, progress: Progress, learned: list[str] | None) -> None:
    """The textbook's two lines, what was learned, and where everything is."""
    if means := progress.running_means:
        since = f" (mean over steps {progress.first_step} to {progress.step})"
        _logger.info(
            ", ".join(f"{name} loss {loss:.3f}" for name, loss, _ in figures(means, task.objective.heads)) + since
        )
        what = {"pairs": "sentence pairs"}.get(task.sequences, task.sequences)
        _logger.info(
            f"{progress.pairs_per_second:,.1f} {what}/s on {describe_devices(task.mesh)} "
            f"(data loading included; the first step, compilation and all, took {progress.first_seconds:.1f} s more)"
        )
    elif learned is not None:
        further = may_go_further(task.config)
        how = "a greater --train.steps to go further" if further else "another --run_dir to train anew"
        _logger.info(f"{folder.path} has made its {progress.steps} steps; give {how}")
    if learned is None:
        _logger.info(f"stopped after step {progress.step}, saved; go on with\n  {folder.resume_command}")
    else:
        for line in learned:
            _logger.info(line)
        if folder.report.is_file():
            _logger.info(f"report in {folder.report}, for a browser")
        _logger.info(f"losses drawn in {folder.loss_plot}; to encode with the model:")
        _logger.info(f'  bertjax encode {shlex.quote(str(folder.path))} "a crane is flying"')
