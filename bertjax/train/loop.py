"""The training loop: from a run's newest checkpoint to its last step, whatever is learned.

Each step is dispatched before the metrics of the one before are read, and the next batch is made in a thread meanwhile:
nothing in the loop waits for the devices, and they wait for no batch that takes less time than a step. What a run has
decided on its way (batches left out, where a budget ends) is in its folder, so that a process which is killed at any
time goes on as if it had not been.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.data.batching.ahead import made_ahead
from bertjax.errors import BertjaxError
from bertjax.evaluation.evaluate import evaluate
from bertjax.objectives.metrics import Metrics
from bertjax.objectives.objective import BatchStream, Objective, Params
from bertjax.parallel.process_group import Processes, SingleProcess
from bertjax.parallel.sharding import Rows, by_name, place_rows, replicated, rows_here, with_sharding
from bertjax.runs.checkpoint_writer import CheckpointWriter
from bertjax.runs.decisions import Skip
from bertjax.runs.folder import RunFolder
from bertjax.runs.plots import LivePlot
from bertjax.runs.signals import Stop
from bertjax.storage.memory import give_back_freed
from bertjax.train.best import Best
from bertjax.train.budget import Budget
from bertjax.train.divergence import LossSpike, RisingLoss, batch_of, check_step, skip_after
from bertjax.train.programs import MakePrograms, Programs, compile_ahead, make_programs
from bertjax.train.progress import Progress, Work
from bertjax.train.state import TrainState, saved_trees, with_params


class Task(NamedTuple):
    """An objective with its batches, its configuration, the weights that it begins with, and the devices."""

    config: Config
    objective: Objective
    train_batches: BatchStream
    held_out_batches: BatchStream
    mesh: Mesh
    initial_state: Callable[[TrainState], TrainState] = lambda state: state
    """Puts the weights that the run starts from into a fresh state, whose `params` are those of the whole model."""
    sequences: str = "sequences"
    """What people call what is learned from, in the plural."""
    work: Callable[[], Work] | None = None
    """Tells what a sequence takes, for whoever looks on."""
    figures: Callable[[Params], Mapping[str, float]] | None = None
    """Computes held-out figures that are not among the metrics, by name, of the whole model's parameters."""


class Outcome(NamedTuple):
    """The end of a loop."""

    state: TrainState | None  # that of the best step, where there is one; None: a signal stopped it
    progress: Progress
    params: Params | None  # the model's, of that state, that are evaluated


def fit(
    folder: RunFolder,
    task: Task,
    *,
    processes: Processes | None = None,
    stop: Stop | None = None,
    began: float | None = None,
    plot: LivePlot | None = None,
    programs: MakePrograms | None = None,
) -> Outcome:
    """Trains from the newest checkpoint of a folder on, and again from there when the loss leaps.

    Args:
      processes: those that run the task together; by default this one alone.
      stop: tells of signals; by default none is looked for.
      began: when the run's process began, in seconds of `time.monotonic`, for a budget; by default now.
      plot: is drawn as the run goes on.
      programs: makes the programs; by default they are this run's alone.

    Raises:
      BertjaxError: the loss stays without a finite value, or a checkpoint cannot be read or written.
    """
    config, began = task.config, time.monotonic() if began is None else began
    made = (programs or make_programs)(config, task.objective, task.mesh)
    progress = Progress(folder.metrics, config.train, task.objective.heads, task.sequences, work=task.work, plot=plot)
    losses = tuple(task.objective.loss_weights)
    _check_best(task, made)
    with contextlib.closing(progress):
        run = _Run(
            folder,
            task,
            processes or SingleProcess(),
            stop or Stop(),
            progress,
            made,
            _make_budget(folder, task, began),
            RisingLoss(config.optim.over(config.train.steps), losses, folder.metrics.read()),
        )
        while True:
            try:
                with CheckpointWriter(
                    folder.checkpoint_folder,
                    keep=config.checkpoint.keep,
                    on_failure=folder.on_failure,
                    publish=folder.publish,
                ) as checkpoints:  # left when the last is written
                    state = _go_on(run, checkpoints)
                return Outcome(state, progress, None if state is None else made.plain(state.eval_params))
            except LossSpike as spike:
                _leave_out(run, spike)


class _Run(NamedTuple):
    """The parts of a run that stay the same from step to step."""

    folder: RunFolder
    task: Task
    processes: Processes
    stop: Stop
    progress: Progress
    programs: Programs
    budget: Budget | None
    rising: RisingLoss


def _go_on(run: _Run, checkpoints: CheckpointWriter) -> TrainState | None:
    """Trains from the newest checkpoint to the last step. None: a signal stopped it."""
    config, progress, decisions = run.task.config, run.progress, run.folder.decisions
    batches, skips = run.task.train_batches, decisions.skips()
    start = run.processes.broadcast(lambda: checkpoints.latest_step() or 0)
    run.folder.metrics.drop_after(start)
    best = _best_so_far(run)
    decided = decisions.last_step()
    seed = _seed(run.task)
    steps, budget = decided or config.train.steps, None if decided else run.budget
    train_step = run.programs.train_step(steps)
    progress.start_at(
        start,
        lambda step: batches.batch_size_at(batch_of(step, skips)),
        lambda step: batches.num_rows_at(batch_of(step, skips)),
    )
    end = start if best.over else steps
    progress.end_at(end, seconds_left=budget.seconds_left if budget else None)
    with contextlib.closing(_batches(run.task, skips, range(start + 1, end + 1))) as made:
        batch = next(made, None)
        with _compiling(run, train_step, batch, seed, budget):
            state = _state_at(run, checkpoints, start)
        # The evaluation that a signal cut short, or a kill, is made up for.
        if start and _due(start, config.eval.every, steps) and not run.folder.metrics.has_evaluation(start):
            if not _evaluated(run, state, best):
                return None
        pending: Metrics | None = None
        step = start
        while step < steps and not best.over:
            step += 1
            state, metrics = train_step(state, batch, seed)
            if budget is not None and (last := _last_step(run, budget, step, first=step == start + 1)):
                steps, train_step, budget = last, run.programs.train_step(last), None
            if pending is not None:
                _read(run, pending, state)
            pending = metrics
            stopping = run.stop.after_step()
            evaluating = not stopping and _due(step, config.eval.every, steps)
            saving = _due(step, config.checkpoint.every, steps)
            if stopping or evaluating or saving:
                _read(run, pending, state)
                pending = None
            if evaluating:
                stopping = not _evaluated(run, state, best)
                saving = saving or best.needs(step)
            if stopping or saving:  # after the evaluation: a checkpoint vouches for all the lines up to its step
                _save(run, checkpoints, step, state, best)
            if stopping:
                return None
            if evaluating or saving:
                progress.restart_clock()
            batch = next(made, None)
    return _best_of(run, checkpoints, state, best)


@contextlib.contextmanager
def _compiling(run: _Run, train_step: Any, batch: Any | None, seed: Array, budget: Budget | None) -> Iterator[None]:
    """Compiles the step in a thread meanwhile, for a batch; where there is none, there is no step to make."""
    if batch is None:
        yield
        return
    if budget is not None:
        budget.compiling_begins()
    with ThreadPoolExecutor(1, "compile") as thread:
        compiled = thread.submit(compile_ahead, train_step, _template(run), batch, seed)
        yield
    compiled.result()
    if budget is not None:
        budget.compiled()


def _batches(task: Task, skips: Sequence[Skip], steps: range) -> Generator[Any, None, None]:
    """Yields each step's batch on the devices; on the host the next one is made meanwhile."""

    def make(step: int) -> tuple[Any, Rows]:
        number = batch_of(step, skips)
        parts = task.config.train.parts
        rows = rows_here(task.train_batches.num_rows_at(number), task.mesh, parts=parts)
        return task.train_batches.batch_at(number, rows.some), rows

    with contextlib.closing(made_ahead(make, steps)) as made:
        for batch, rows in made:
            yield place_rows(batch, rows, task.mesh)


def _seed(task: Task) -> Array:
    return jax.device_put(jnp.uint32(task.config.seed), replicated(task.mesh))


def _save(run: _Run, checkpoints: CheckpointWriter, step: int, state: TrainState, best: Best) -> None:
    """Starts to save a checkpoint, which vouches for all the lines of metrics up to its step."""
    run.folder.check_held()
    try:
        run.folder.metrics.flush()
    except OSError as error:
        checkpoints.failed(step, error)
    else:
        checkpoints.save(step, saved_trees(state), best=best.steps)


def _make_budget(folder: RunFolder, task: Task, began: float) -> Budget | None:
    config, held_out = task.config, task.held_out_batches
    if config.train.budget_seconds is None:
        return None
    return Budget(
        config.train.budget_seconds,
        spent=folder.metrics.seconds_spent() + time.monotonic() - began,
        decay_share=config.optim.decay_share,
        steps=config.train.steps,
        # An evaluation's batch, which has no way back, takes less than half of a step.
        afterwards=held_out.num_sequences // held_out.batch_size // 2 + 1,
    )


def _last_step(run: _Run, budget: Budget, step: int, *, first: bool) -> int | None:
    """The last step, when the learning rate has to fall for the run to end in its time; all processes ask at once."""
    every = run.task.config.train.log_every
    if first:  # dispatched, so compiled
        budget.first_step_done(step)
    if step % every:
        return None

    def decide() -> int | None:
        run.folder.metrics.append_timings({"step": step, "seconds_spent": round(budget.spent, 3)})
        if last := budget.last_step(step, every):
            run.folder.decisions.end_at(last)
            run.progress.say(f"step {step}: the learning rate falls from here on, to end at step {last} in time")
        return last

    if last := run.processes.broadcast(decide):
        run.progress.end_at(last)
    return last


def _due(step: int, every: int, steps: int) -> bool:
    return step == steps or (every > 0 and step % every == 0)


def _read(run: _Run, metrics: Metrics, state: TrainState) -> None:
    """Waits for a step's metrics, shows and judges them."""
    means = run.progress.step_done(metrics)
    if warning := run.rising.seen(run.progress.step, means):
        run.progress.say(warning)
    check_step(run.progress.step, means, run.task.config.train, state.params)


def _check_best(task: Task, programs: Programs) -> None:
    """Raises BertjaxError where there is no such figure as is to tell which step is the best."""
    best, held_out = task.config.eval.best, task.held_out_batches
    if best in (None, "loss"):
        return
    rows = rows_here(held_out.num_rows, task.mesh)
    batch = place_rows(next(held_out.first_epoch(rows.some)), rows, task.mesh)
    names = {"loss", *jax.eval_shape(programs.eval_step, programs.template.all_params, batch)}
    if best not in names and task.figures is not None:
        names |= {*task.figures(programs.plain(programs.init(_seed(task)).all_params))}
    if best not in names:
        raise BertjaxError(f"there is no held-out figure eval.best={best}; give one of {', '.join(sorted(names))}")


def _best_so_far(run: _Run) -> Best:
    config = run.task.config.eval
    values = run.processes.broadcast(lambda: run.folder.metrics.values(config.best) if config.best else {})
    return Best(config, values)


def _best_of(run: _Run, checkpoints: CheckpointWriter, state: TrainState, best: Best) -> TrainState:
    """The state of the best step whose checkpoint is sound, in place of the last one's."""

    def choose() -> int | None:
        return checkpoints.first_sound(lambda steps: [step for step in best.steps if step in steps])

    step = run.processes.broadcast(choose) if best.steps else None
    return state if step in (None, int(state.step)) else _restored(run, checkpoints, step)


def _evaluated(run: _Run, state: TrainState, best: Best) -> bool:
    """Evaluates. False where a signal cut it short: then it counts for nothing, and is made when the run is resumed."""
    held_out, mesh = run.task.held_out_batches, run.task.mesh
    rows = rows_here(held_out.num_rows, mesh)
    batches = itertools.takewhile(lambda _: not run.stop.after_step(), held_out.first_epoch(rows.some))
    means = evaluate(run.programs.eval_step, state.eval_params, batches, rows, mesh)
    if run.stop.after_step():
        return False
    if best.figure == "loss":
        weights = run.task.objective.loss_weights
        means["loss"] = sum(weights[name] * means[name] for name in weights if name in means)
    elif best.figure and best.figure not in means and run.task.figures is not None:
        means |= run.task.figures(run.programs.plain(state.eval_params))
    run.progress.held_out(means)
    if best.figure:
        best.add(run.progress.step, means.get(best.figure))
    if best.over:
        than = f" than that of step {best.steps[0]}" if best.steps else ""
        run.progress.say(f"step {run.progress.step}: no better {best.figure}{than} so far; the run ends")
        run.progress.end_at(run.progress.step)
    return True


def _state_at(run: _Run, checkpoints: CheckpointWriter, step: int) -> TrainState:
    """That of a step's checkpoint; of 0 a fresh one."""
    if step:
        return _restored(run, checkpoints, step)
    fresh = run.programs.init(_seed(run.task))
    whole = run.task.initial_state(fresh._replace(params=fresh.all_params, frozen=None))
    state = with_params(fresh, whole.params)
    del fresh, whole
    give_back_freed()
    return state


def _restored(run: _Run, checkpoints: CheckpointWriter, step: int) -> TrainState:
    template = _template(run)
    trees = checkpoints.restore(step, saved_trees(template))
    return TrainState(step=jax.device_put(jnp.int32(step), template.step.sharding), **trees)


def _template(run: _Run) -> TrainState:
    """Shapes, dtypes and places of a state."""
    return with_sharding(run.programs.template, by_name(run.programs.template, run.task.mesh))


def _leave_out(run: _Run, spike: LossSpike) -> None:
    """Notes that the batches since the newest checkpoint are left out. From then on a kill changes nothing."""

    def note() -> None:
        with CheckpointWriter(run.folder.checkpoint_folder, keep=run.task.config.checkpoint.keep) as checkpoints:
            step = checkpoints.latest_step() or 0
        skip = skip_after(step, spike, run.folder.decisions.skips())
        run.folder.decisions.add_skip(skip)
        run.progress.say(f"{spike}: back to step {step}, leaving out the {skip.batches} batches since")

    run.processes.broadcast(note)
