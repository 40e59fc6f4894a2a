"""A whole run, whatever is learned: what it reads is opened, it trains, and says what it has learned."""

import dataclasses
import logging
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from jax.sharding import Mesh

from bertjax.config import Config, DistributedConfig
from bertjax.config.checks import as_type
from bertjax.errors import shown
from bertjax.evaluation.report import write_report
from bertjax.parallel.distributed import Agreement, joined, run_of
from bertjax.parallel.memory import enough_memory
from bertjax.parallel.process_group import Processes
from bertjax.parallel.sharding import find_devices, make_mesh
from bertjax.runs.folder import Inputs, RunFolder
from bertjax.runs.metrics import figures
from bertjax.runs.plots import LivePlot, check_notebook, plot_losses
from bertjax.runs.remote_run import at_url, run_path
from bertjax.runs.report import Learned
from bertjax.runs.signals import Stop, stopping_on_signals
from bertjax.storage.paths import url_of
from bertjax.train.account import account
from bertjax.train.loop import Task, fit
from bertjax.train.memory import in_parts_that_fit
from bertjax.train.open_run import Prepare, may_go_further, open_run, with_model_of_init
from bertjax.train.programs import MakePrograms
from bertjax.train.progress import Progress, describe_devices
from bertjax.train.state import TrainState

_logger = logging.getLogger(__name__)

_LESS_MEMORY = (
    "give --train.gradient_accumulation_steps auto, --train.remat true, "
    "or a smaller train.batch_size or data.max_length"
)

P = TypeVar("P", bound=Inputs)


class Outcome(NamedTuple):
    """What a run says of its learning."""

    lines: list[str]  # on a terminal
    shown: Learned | None = None  # in its report; None where that has nothing of it to show
    figures: Mapping[str, float] = {}  # held out, by what people call them; the first is the one to choose runs by


class Course(NamedTuple, Generic[P]):
    """What sets one kind of run apart from another, as plain functions."""

    command: str  # of the command line
    prepare: Prepare[P]
    introduce: Callable[[P, Mesh], None]  # logs what is read and what learns from it
    task: Callable[[P, Mesh], Task]
    learned: Callable[[RunFolder, P, Mesh, Processes, TrainState], Outcome]  # in which all processes take part
    what_next: Callable[[RunFolder], list[str]]  # says what to do with what was trained


class Finished(NamedTuple):
    """What a run leaves."""

    folder: Path
    figures: Mapping[str, float]  # held out, of what the run gives; the first is the one to choose runs by


def run(
    config: Config, course: Course[P], *, resume: bool = False, plot: bool = False, typed: Collection[str] = ()
) -> Path:
    """Does what `carry_out` does and returns the run's folder."""
    return carry_out(config, course, resume=resume, plot=plot, typed=typed).folder


def carry_out(
    config: Config,
    course: Course[P],
    *,
    resume: bool = False,
    plot: bool = False,
    typed: Collection[str] = (),
    programs: MakePrograms | None = None,
) -> Finished:
    """Trains as the configuration says.

    It may be killed at any time: resumed, the run ends as if it never had been.

    Args:
      resume: go on from the newest checkpoint of `config.run_dir`; from the beginning where there is none yet.
      plot: in a notebook, draw the losses as the run goes on.
      typed: keys such as model.num_layers that are not to give way to what `config.init_from` says, as a recipe's do.
      programs: as of `fit`.

    Raises:
      BertjaxError: text, folder, configuration or checkpoint will not do; the message says why and what to do.
      KeyboardInterrupt: after Ctrl-C, when the last checkpoint is written.
      SystemExit: after SIGTERM or SIGUSR1, likewise, with `ExitCode.STOPPED`.
    """
    config, resume = as_type(config, Config, "config"), as_type(resume, bool, "resume")
    if as_type(plot, bool, "plot"):
        check_notebook()
    with stopping_on_signals() as stop:
        with joined(config.distributed, run_of(config)) as processes:
            # Who takes part is nothing of the run's own: it may go on with more or fewer.
            config = dataclasses.replace(config, distributed=DistributedConfig())
            with at_url(config, processes, resume=resume) as publish:
                how: Any = {"resume": resume, "plot": plot, "typed": typed, "programs": programs, "publish": publish}
                figures = _train(config, course, processes, stop, **how)
        if figures is None:
            stop.leave()
    assert figures is not None
    return Finished(run_path(config), figures)


def _train(
    config: Config,
    course: Course[P],
    processes: Processes,
    stop: Stop,
    *,
    resume: bool,
    plot: bool,
    typed: Collection[str],
    programs: MakePrograms | None,
    publish: Callable[[], None],
) -> Mapping[str, float] | None:
    """The held-out figures; None: a signal stopped it."""
    began, folder = time.monotonic(), _folder(config, course.command, processes, publish)
    config = with_model_of_init(config, folder, resume=resume, typed=typed)
    mesh = make_mesh(*config.mesh_sizes(len(find_devices())))
    stop.agree = stop.agree if processes.size == 1 else Agreement(mesh)
    processes.where = folder.how_to_go_on
    with (
        open_run(folder, config, processes, course.prepare, resume=resume, typed=typed) as prepared,
        folder.writing(),
        enough_memory(_LESS_MEMORY),
    ):
        course.introduce(prepared, mesh)
        _logger.info(f"devices:  {describe_devices(mesh)}; folder: {shown(config.run_dir)}")
        prepared, programs = _in_parts_that_fit(folder, course, prepared, mesh, processes, programs)
        task, reports = course.task(prepared, mesh), prepared.config.logging.report
        title = f"{folder.path.name}, on {prepared.train.name}"
        live = LivePlot(folder.metrics, title, task.objective.heads) if plot else None
        with stop.finishing():
            how: Any = {"processes": processes, "stop": stop, "began": began, "plot": live, "programs": programs}
            state, progress, params = fit(folder, task, **how)
            if processes.first and progress.first_seconds:  # a step was made
                # A signal leaves no time for it, nor does a run whose seconds are counted.
                told = account(task.work if state is not None and reports else None, progress, began=began)
                folder.metrics.append_account(told)
            learned = None
            if state is not None and params is not None:
                plain = state._replace(params=params, average=None, frozen=None)
                learned = course.learned(folder, prepared, mesh, processes, plain)
        if processes.first:
            plot_losses(folder.metrics.read(), folder.loss_plot, title, task.objective.heads)
            if learned is not None and reports:
                write_report(folder, prepared.config, learned.shown)
        lines = None
        if state is not None and learned is not None:
            best = [_describe_best(folder, task, progress, int(state.step))] if task.config.eval.best else []
            lines = [*best, *learned.lines, *course.what_next(folder)]
        _conclude(folder, task, progress, lines)
    return None if learned is None else learned.figures or _held_out(folder, prepared.config)


def _folder(config: Config, command: str, processes: Processes, publish: Callable[[], None]) -> RunFolder:
    # Of several processes one may fail to write where the others do not: then they stop, as they cannot but part.
    on_failure = config.checkpoint.on_failure if processes.size == 1 else "stop"
    return RunFolder(
        run_path(config),
        writes=processes.first,
        on_failure=on_failure,
        tensorboard=config.logging.tensorboard,
        command=command,
        url=url_of(config.run_dir),
        publish=publish,
    )


def _in_parts_that_fit(
    folder: RunFolder,
    course: Course[P],
    prepared: P,
    mesh: Mesh,
    processes: Processes,
    programs: MakePrograms | None,
) -> tuple[P, MakePrograms | None]:
    """Decides in how many parts batches are computed, where that is left to the run, and keeps it in its folder."""
    config = prepared.config
    if config.train.gradient_accumulation_steps != "auto":
        return prepared, programs

    def in_parts(parts: int) -> Config:
        return dataclasses.replace(config, train=dataclasses.replace(config.train, gradient_accumulation_steps=parts))

    def task_in(parts: int) -> Task:
        return course.task(prepared._replace(config=in_parts(parts)), mesh)

    parts, programs = in_parts_that_fit(task_in, processes, programs)
    with warnings.catch_warnings(action="ignore"):  # it was all said when it was first read
        # Once more, as when the run is resumed: held-out batches are as small as a part.
        prepared = course.prepare(in_parts(parts), prepared.tokenizer)
    folder.rewrite_config(prepared)
    return prepared, programs


def _held_out(folder: RunFolder, config: Config) -> dict[str, float]:
    prefix = "held_out_"
    line = folder.metrics.evaluation(config.eval.best)
    return {name.removeprefix(prefix): line[name] for name in line if name.startswith(prefix)}


def _describe_best(folder: RunFolder, task: Task, progress: Progress, step: int) -> str:
    figure = task.config.eval.best
    assert figure is not None
    value = folder.metrics.values(figure).get(step)
    told = "" if value is None else f", held-out {figure} {value:.4f}"
    return f"best:     step {step} of {progress.step}{told}; it is what the run gives"


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
        _logger.info(f"{folder.place} has made its {progress.steps} steps; give {how}")
    if learned is None:
        _logger.info(f"stopped after step {progress.step}, saved; go on with\n  {folder.resume_command}")
    else:
        for line in learned:
            _logger.info(line)
