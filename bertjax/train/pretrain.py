"""A whole run: text in, a folder with a trained encoder out."""

import contextlib
import dataclasses
import itertools
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bertjax.config import HEADS, Config, DistributedConfig, Objective
from bertjax.data.prepare import Prepared, describe
from bertjax.evaluation.evaluate import evaluate
from bertjax.evaluation.learned import guess, guesses_in_words, held_out_in_words, hidden_words
from bertjax.models.bert import num_parameters
from bertjax.objectives.metrics import Metrics
from bertjax.parallel.distributed import Agreement, joined
from bertjax.parallel.process_group import Processes
from bertjax.parallel.sharding import by_name, make_mesh, place_rows, rows_here, with_sharding
from bertjax.runs.checkpoints import Checkpoints
from bertjax.runs.folder import RunFolder
from bertjax.runs.metrics import figures
from bertjax.runs.plots import plot_losses
from bertjax.runs.signals import Stop, stopping_on_signals
from bertjax.train.budget import Budget
from bertjax.train.divergence import LossSpike, Rising, batch_of, loss_of, skip_after, watch
from bertjax.train.initial_state import Programs, make_programs
from bertjax.train.open_run import opened_by_all, with_its_model
from bertjax.train.progress import Progress, describe_devices
from bertjax.train.step import TrainState


def pretrain(config: Config, *, resume: bool = False) -> Path:
    """Trains as the configuration says and returns the run's folder.

    It may be killed at any time: resumed, the run ends as if it never had been.

    Args:
      resume: go on from the newest checkpoint of `config.run_dir`; from the beginning where there is none yet.

    Raises:
      BertjaxError: text, folder, configuration or checkpoint will not do; the message says why and what to do.
      KeyboardInterrupt: after Ctrl-C, when the last checkpoint is written.
      SystemExit: after SIGTERM or SIGUSR1, likewise, with code 0.
    """
    with stopping_on_signals() as stop:
        with joined(config.distributed) as processes:
            # Who takes part is nothing of the run's own: it may go on with more or fewer.
            config = dataclasses.replace(config, distributed=DistributedConfig())
            finished = _train(config, processes, stop, resume=resume)
        if not finished:
            stop.leave()
    return Path(config.run_dir)


def _train(config: Config, processes: Processes, stop: Stop, *, resume: bool) -> bool:
    """False: a signal stopped it."""
    began = time.monotonic()
    config = with_its_model(config, RunFolder(config.run_dir), resume=resume)
    mesh = make_mesh(*config.mesh_sizes(jax.device_count()))
    stop.agree = stop.agree if processes.size == 1 else Agreement(mesh)
    # Of several processes one may fail to write where the others do not: then they stop, as they cannot but part.
    on_failure = config.checkpoint.on_failure if processes.size == 1 else "stop"
    folder = RunFolder(
        config.run_dir, writes=processes.first, on_failure=on_failure, tensorboard=config.logging.tensorboard
    )
    processes.where = folder.how_to_go_on
    with opened_by_all(folder, config, processes, resume=resume) as prepared, folder.writing():
        _introduce(prepared, mesh)
        with stop.finishing():
            progress, learned = _fit(folder, prepared, mesh, processes, stop, began)
        if processes.first:
            title = f"{folder.path.name}, on {prepared.train.name}"
            plot_losses(folder.metrics(), folder.loss_plot, title, prepared.config.data.objective)
        _conclude(folder, progress, mesh, prepared.config.data.objective, learned)
    return learned is not None


class _Run(NamedTuple):
    """What stays the same from step to step."""

    folder: RunFolder
    prepared: Prepared
    mesh: Mesh
    processes: Processes
    stop: Stop
    progress: Progress
    programs: Programs
    budget: Budget | None
    rising: Rising


def _fit(
    folder: RunFolder, prepared: Prepared, mesh: Mesh, processes: Processes, stop: Stop, began: float
) -> tuple[Progress, list[str] | None]:
    """Trains from the newest checkpoint on, and again from there when the loss leaps; tells what was learned.

    None: a signal stopped it.
    """
    config = prepared.config
    programs = make_programs(prepared, mesh)
    with contextlib.closing(Progress(folder, config.train, config.data.objective)) as progress:
        budget = _budget(folder, prepared, began)
        rising = Rising(config.optim, next((loss_of(line) for line in folder.metrics() if "loss_rise" in line), None))
        run = _Run(folder, prepared, mesh, processes, stop, progress, programs, budget, rising)
        while True:
            try:
                with folder.checkpoints(keep=config.checkpoint.keep) as checkpoints:  # left when the last is written
                    state = _go_on(run, checkpoints)
                return progress, None if state is None else _learned(run, state)
            except LossSpike as spike:
                _leave_out(run, spike)


def _go_on(run: _Run, checkpoints: Checkpoints) -> TrainState | None:
    """The loop. Each step is dispatched before the metrics of the one before are read. None: a signal stopped it."""
    config, progress = run.prepared.config, run.progress
    batches, skips = run.prepared.train_batches, run.folder.skips()
    start, state = _newest(run, checkpoints)
    decided = run.folder.last_step()
    steps, budget = decided or config.train.steps, None if decided else run.budget
    train_step = run.programs.train_step(steps)
    progress.start_at(start, lambda step: batches.batch_size_at(batch_of(step, skips)))
    progress.end_at(steps, seconds_left=budget.seconds_left if budget else None)
    # The evaluation that a signal cut short, or a kill, is made up for.
    if start and _due(start, config.eval.every, steps) and not run.folder.has_evaluation(start):
        if not _evaluated(run, state):
            return None
    pending: Metrics | None = None
    step = start
    if budget is not None:
        budget.begin()
    while step < steps:
        step += 1
        number = batch_of(step, skips)
        rows = rows_here(batches.num_rows_at(number), run.mesh, parts=config.train.gradient_accumulation_steps)
        state, metrics = train_step(state, place_rows(batches.batch_at(number, rows.some), rows, run.mesh))
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
            stopping = not _evaluated(run, state)
        if stopping or saving:  # after the evaluation: a checkpoint vouches for all the lines up to its step
            run.folder.save(checkpoints, step, _trees(state))
        if stopping:
            return None
        if evaluating or saving:
            progress.restart_clock()
    return state


def _budget(folder: RunFolder, prepared: Prepared, began: float) -> Budget | None:
    config, held_out = prepared.config, prepared.held_out_batches
    if config.train.budget_seconds is None:
        return None
    return Budget(
        config.train.budget_seconds,
        spent=folder.seconds_spent() + time.monotonic() - began,
        decay_share=config.optim.decay_share,
        steps=config.train.steps,
        # An evaluation's batch, which has no way back, takes less than half of a step.
        afterwards=held_out.num_sequences // held_out.batch_size // 2 + 1,
    )


def _last_step(run: _Run, budget: Budget, step: int, *, first: bool) -> int | None:
    """The last step, when the learning rate has to fall for the run to end in its time; all processes ask at once."""
    every = run.prepared.config.train.log_every
    if first:  # dispatched, so compiled
        budget.first_step_done(step)
    if step % every:
        return None

    def decide() -> int | None:
        run.folder.append_timings({"step": step, "seconds_spent": round(budget.spent, 3)})
        if last := budget.last_step(step, every):
            run.folder.end_at(last)
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
    watch(run.progress.step, means, run.prepared.config.train, state.params)


def _evaluated(run: _Run, state: TrainState) -> bool:
    """Evaluates. False where a signal cut it short: then it counts for nothing, and is made when the run is resumed."""
    held_out = run.prepared.held_out_batches
    rows = rows_here(held_out.num_rows, run.mesh)
    batches = itertools.takewhile(lambda _: not run.stop.after_step(), held_out.first_epoch(rows.some))
    means = evaluate(run.programs.eval_step, state.eval_params, batches, rows, run.mesh)
    if run.stop.after_step():
        return False
    run.progress.held_out(means)
    return True


def _learned(run: _Run, state: TrainState) -> list[str]:
    """Lines for the first process to print. All take part in the guesses."""
    tokenizer, max_length = run.prepared.tokenizer, run.prepared.config.data.max_length
    hidden = hidden_words(run.prepared)
    guessed = guess(hidden, run.programs.model, state.eval_params, run.mesh, tokenizer, max_length=max_length)
    if not run.processes.first:
        return []
    evaluation = run.folder.newest_evaluation()
    lines = [held_out_in_words(run.prepared, evaluation)] if evaluation else []
    return lines + guesses_in_words(hidden, guessed, tokenizer)


def _newest(run: _Run, checkpoints: Checkpoints) -> tuple[int, TrainState]:
    """The newest checkpoint's step and state, or 0 and a fresh one; the metrics end there too."""
    step = run.processes.broadcast(lambda: checkpoints.latest_step() or 0)
    if step:
        template = with_sharding(run.programs.template, by_name(run.programs.template, run.mesh))
        trees = checkpoints.restore(step, _trees(template))
        state = TrainState(step=jax.device_put(jnp.int32(step), template.step.sharding), **trees)
    else:
        state = run.programs.fresh_state()
    run.folder.drop_metrics_after(step)
    return step, state


def _trees(state: TrainState) -> dict[str, Any]:
    """What a checkpoint holds; its number is the step."""
    return {name: tree for name, tree in state._asdict().items() if name != "step" and tree is not None}


def _leave_out(run: _Run, spike: LossSpike) -> None:
    """Notes that the batches since the newest checkpoint are left out. From then on a kill changes nothing."""

    def note() -> None:
        with run.folder.checkpoints() as checkpoints:
            step = checkpoints.latest_step() or 0
        skip = skip_after(step, spike, run.folder.skips())
        run.folder.add_skip(skip)
        run.progress.say(f"{spike}: back to step {step}, leaving out the {skip.batches} batches since")

    run.processes.broadcast(note)


def _introduce(prepared: Prepared, mesh: Mesh) -> None:
    config = prepared.config
    print(describe(prepared))
    print(f"model:    {num_parameters(config.model):,} parameters, vocabulary {config.model.vocab_size:,}")
    parts = mesh.shape["tensor"]
    if (config.model.vocab_size or 0) % parts:
        print(f"NOTICE:   every device computes the whole vocabulary; a model.vocab_size divisible by {parts} is split")
    print(f"devices:  {describe_devices(mesh)}; folder: {config.run_dir}", flush=True)


def _conclude(
    folder: RunFolder, progress: Progress, mesh: Mesh, objective: Objective, learned: list[str] | None
) -> None:
    """The textbook's two lines, what was learned, and where everything is."""
    if means := progress.running_means:
        since = f" (mean over steps {progress.first_step} to {progress.step})"
        print(", ".join(f"{name} loss {loss:.3f}" for name, loss, _ in figures(means, HEADS[objective])) + since)
        what = "sequences" if objective == "mlm" else "sentence pairs"
        print(
            f"{progress.pairs_per_second:,.1f} {what}/s on {describe_devices(mesh)} "
            f"(data loading included; the first step, compilation and all, took {progress.first_seconds:.1f} s more)"
        )
    elif learned is not None:
        print(f"{folder.path} has made its {progress.steps} steps; give a greater --train.steps to go further")
    if learned is None:
        print(f"stopped after step {progress.step}, saved; go on with")
        print(f"  {folder.resume_command}")
    else:
        encoding = sys.stdout.encoding or "utf-8"
        for line in learned:
            print(line.encode(encoding, "replace").decode(encoding))  # words may be in any script
        print(f"losses drawn in {folder.loss_plot}; to encode with the model:")
        print(f'  bertjax encode {shlex.quote(str(folder.path))} "a crane is flying"')
