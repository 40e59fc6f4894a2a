"""A whole run: text in, a folder with a trained encoder out."""

import contextlib
import dataclasses
import os
import shlex
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bertjax.checkpoint import Checkpoints
from bertjax.config import Config
from bertjax.data.prepare import Prepared, describe, prepare
from bertjax.errors import BertjaxError
from bertjax.evaluate import compile_eval_step, evaluate
from bertjax.model import make_model, num_parameters
from bertjax.optim import make_optimizer, make_schedule
from bertjax.progress import Progress, describe_devices
from bertjax.report import plot_losses
from bertjax.run import RunFolder
from bertjax.sharding import by_name, make_mesh, place_batch, with_sharding
from bertjax.train import Metrics, TrainState, compile_train_step, init_on, state_template


def pretrain(config: Config, *, resume: bool = False) -> Path:
    """Trains as the configuration says and returns the run's folder.

    Args:
      resume: go on from the newest checkpoint of `config.run_dir`.

    Raises:
      BertjaxError: text, folder, configuration or checkpoint will not do; the message says why and what to do.
      KeyboardInterrupt: after Ctrl-C, when the last checkpoint is written.
    """
    mesh = make_mesh(*config.mesh_sizes(jax.device_count()))
    folder = RunFolder(config.run_dir)
    prepared = _resume(folder, config) if resume else _begin(folder, config)
    _introduce(prepared, mesh)
    with folder.writing():
        # Ctrl-C is ours until the checkpoints are closed: closing waits for the last one to be written.
        with _stop_on_ctrl_c() as stop, folder.checkpoints(keep=config.checkpoint.keep) as checkpoints:
            progress = _fit(folder, prepared, mesh, checkpoints, stop, resume=resume)
        plot_losses(folder.metrics(), folder.loss_plot, title=f"{folder.path.name}, on {prepared.train.name}")
    _conclude(folder, progress, mesh)
    if progress.step < config.train.steps:
        raise KeyboardInterrupt
    return folder.path


def _begin(folder: RunFolder, config: Config) -> Prepared:
    folder.check_free()
    prepared = prepare(config)
    folder.create(prepared)
    return prepared


def _resume(folder: RunFolder, config: Config) -> Prepared:
    made_from = folder.config().data.source
    with folder.checkpoints() as checkpoints:
        step = folder.latest_step(checkpoints)
    if made_from == config.data.fallback:  # the run fell back to it once, and stays with it
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=made_from))
    prepared = prepare(config, folder.tokenizer())
    folder.check_same(prepared)
    if step >= config.train.steps:
        raise BertjaxError(f"{folder.path} has made its {step} steps; give a greater --train.steps to go further")
    folder.rewrite_config(prepared)
    return prepared


def _fit(
    folder: RunFolder,
    prepared: Prepared,
    mesh: Mesh,
    checkpoints: Checkpoints,
    stop: threading.Event,
    *,
    resume: bool,
) -> Progress:
    """The loop. Each step is dispatched before the metrics of the one before are read."""
    config = prepared.config
    steps = config.train.steps
    batches, held_out = prepared.train_batches, prepared.held_out_batches
    model, optimizer = make_model(config.model, config.train), make_optimizer(config.optim, steps)
    schedule = make_schedule(config.optim, steps)
    train_step = compile_train_step(
        mesh, model, optimizer, schedule, seed=config.seed, accumulate=config.train.accumulate
    )
    eval_step = compile_eval_step(mesh, model)
    start = folder.latest_step(checkpoints) if resume else 0
    if resume:
        state = _restore(checkpoints, start, state_template(model, optimizer), mesh)
        folder.drop_metrics_after(start)
    else:
        state = init_on(mesh, model, optimizer, config.seed)
    progress = Progress(folder, config.train, start=start)
    with contextlib.closing(progress):
        pending: Metrics | None = None
        for step in range(start + 1, steps + 1):
            batch = place_batch(batches.batch_at(step - 1), mesh, parts=config.train.accumulate)
            state, metrics = train_step(state, batch)
            if pending is not None:
                progress.step_done(pending)
            pending = metrics
            stopping = stop.is_set()
            evaluating = not stopping and (step == steps or _due(step, config.eval.every))
            saving = stopping or step == steps or _due(step, config.checkpoint.every)
            if evaluating or saving:
                progress.step_done(pending)
                pending = None
            if evaluating:
                progress.held_out(evaluate(eval_step, state.params, held_out.first_epoch(), mesh))
            if saving:  # after the evaluation: a checkpoint vouches for all the lines up to its step
                checkpoints.save(step, {"params": state.params, "opt_state": state.opt_state})
            if stopping:
                break
            if evaluating or saving:
                progress.restart_clock()
    return progress


def _restore(checkpoints: Checkpoints, step: int, template: TrainState, mesh: Mesh) -> TrainState:
    template = with_sharding(template, by_name(template, mesh))
    trees = checkpoints.restore(step, {"params": template.params, "opt_state": template.opt_state})
    return TrainState(jax.device_put(jnp.int32(step), template.step.sharding), **trees)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextlib.contextmanager
def _stop_on_ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second stops at once, as it would outside."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread handle signals
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def on_ctrl_c(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        # Not print: what the signal interrupted may be in the middle of one.
        os.write(2, b"\nstopping after this step, then saving; Ctrl-C again stops at once\n")

    signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _introduce(prepared: Prepared, mesh: Mesh) -> None:
    config = prepared.config
    print(describe(prepared))
    print(f"model:    {num_parameters(config.model):,} parameters, vocabulary {config.model.vocab_size:,}")
    parts = mesh.shape["tensor"]
    if (config.model.vocab_size or 0) % parts:
        print(f"NOTICE:   every device computes the whole vocabulary; a model.vocab_size divisible by {parts} is split")
    print(f"devices:  {describe_devices(mesh)}; folder: {config.run_dir}", flush=True)


def _conclude(folder: RunFolder, progress: Progress, mesh: Mesh) -> None:
    """The textbook's two lines, and where everything is."""
    means = progress.running_means
    since = f" (mean over steps {progress.first_step} to {progress.step})"
    print(f"MLM loss {means['mlm_loss']:.3f}, NSP loss {means['nsp_loss']:.3f}{since}")
    print(
        f"{progress.pairs_per_second:,.1f} sentence pairs/s on {describe_devices(mesh)} "
        f"(data loading included; the first step, compilation and all, took {progress.first_seconds:.1f} s more)"
    )
    name = shlex.quote(str(folder.path))
    if progress.step < progress.steps:
        print(f"stopped after step {progress.step}, saved; go on with")
        print(f"  bertjax pretrain --config {name}/config.yaml --run_dir {name} --resume")
    else:
        print(f"losses drawn in {folder.loss_plot}; to encode with the model:")
        print(f'  bertjax encode {name} "a crane is flying"')
