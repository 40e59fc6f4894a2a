"""Trains to a held-out loss: `python -m benchmarks.learning.speedrun RECIPE TARGET STARTED REPORT`."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from benchmarks.learning.energy import Meter
from bertjax.config import Config
from bertjax.config.recipes import load_config
from bertjax.data.batching.batch import Batch
from bertjax.data.prepare import Prepared, prepare
from bertjax.evaluation.evaluate import evaluate
from bertjax.parallel.sharding import make_mesh, place_rows, rows_here
from bertjax.train.pretrain import pretraining_task
from bertjax.train.programs import Programs, compile_ahead, make_programs
from bertjax.train.progress import describe_devices
from bertjax.train.step import Metrics, TrainState

_EVERY = 10  # steps between evaluations, where the recipe says nothing


def race(config: Config, target: float, started: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Trains as the recipe says, but for checkpoints, until an evaluation finds the MLM loss at the target.

    The clock of training runs from the first step's dispatch, all being compiled, to the last step's end, and stands
    still while the model is evaluated.

    Args:
      started: when the process was started, in seconds since 1970.

    Returns:
      A report.
    """
    prepared = prepare(config)
    config, batches, held_out = prepared.config, prepared.train_batches, prepared.held_out_batches
    mesh = make_mesh(*config.mesh_sizes(jax.device_count()))
    task = pretraining_task(prepared, mesh)
    programs = make_programs(config, task.objective, mesh)
    eval_rows = rows_here(held_out.num_rows, mesh)
    state = task.initial_state(programs.init(config.seed))
    train_step = _compiled(programs, prepared, mesh, state)
    jax.block_until_ready(state)
    trained = evaluated = 0.0
    joules: dict[str, float] = {}
    losses: dict[int, float] = {}
    every, pending = config.eval.every or _EVERY, None
    with Meter() as meter:
        start_up, clock, used = time.time() - started, time.perf_counter(), meter.joules()
        for step in range(1, config.train.steps + 1):
            state, metrics = train_step(state, step - 1)
            jax.block_until_ready(pending)  # a step late, as in training
            pending = metrics
            if step % every and step < config.train.steps:
                meter.joules()
                continue
            jax.block_until_ready(state)
            now, used_now = time.perf_counter(), meter.joules()
            trained += now - clock
            joules = {name: joules.get(name, 0.0) + value - used.get(name, 0.0) for name, value in used_now.items()}
            means = evaluate(
                programs.eval_step, state.eval_params, held_out.first_epoch(eval_rows.some), eval_rows, mesh
            )
            losses[step] = means["mlm_loss"]
            say(f"step {step}, {trained:.1f} s: held-out MLM loss {losses[step]:.4f}")
            clock, used = time.perf_counter(), meter.joules()
            evaluated += clock - now
            if losses[step] <= target:
                break
    return {
        "trial": "speedrun",
        "devices": describe_devices(mesh),
        "corpus": [prepared.train.name, prepared.held_out.name],
        "target": target,
        "reached": losses[step] <= target,
        "losses": losses,
        "means": means,
        "steps": step,
        "pairs": round(sum(batches.batch_size_at(earlier) for earlier in range(step))),
        "start_up_seconds": start_up,
        "training_seconds": trained,
        "evaluation_seconds": evaluated,
        "joules": joules,
    }


def _compiled(
    programs: Programs, prepared: Prepared, mesh: Mesh, state: TrainState
) -> Callable[[TrainState, int], tuple[TrainState, Metrics]]:
    """Returns the training step of a number, counted from 0, compiled for every size that batches have."""
    train, seed, batches = prepared.config.train, prepared.config.seed, prepared.train_batches
    train_step = programs.train_step(train.steps)

    def placed(step: int) -> Batch:
        rows = rows_here(batches.num_rows_at(step), mesh, parts=train.parts)
        return place_rows(batches.batch_at(step, rows.some), rows, mesh)

    step_of_size = {batches.num_rows_at(step): step for step in reversed(range(train.steps))}
    for step in step_of_size.values():
        compile_ahead(train_step, state, placed(step), seed)
    return lambda state, step: train_step(state, placed(step), seed)


def render(report: dict[str, Any]) -> str:
    """Returns a few lines on the race."""
    loss, best = report["means"]["mlm_loss"], min(report["losses"].values())
    if report["reached"]:
        first = f"held-out MLM loss {loss:.4f}, at most {report['target']:g}, after"
    else:
        first = f"NOT REACHED: held-out MLM loss {report['target']:g}; the best was {best:.4f} in"
    trained, whole = report["training_seconds"], report["training_seconds"] + report["start_up_seconds"]
    energy = ", ".join(f"{value:,.0f} J ({name})" for name, value in report["joules"].items())
    return "\n".join(
        [
            f"{first} {report['steps']:,} steps, {report['pairs']:,} pairs, on {report['devices']}",
            f"  {trained:.1f} s of training; {whole:.1f} s with start-up: Python, the text, and compilation",
            f"  {report['evaluation_seconds']:.1f} s of evaluation, in neither",
            f"  energy of training: {energy or 'this machine does not tell'}",
        ]
    )


def main(recipe: str, target: str, started: str, out: str) -> None:
    report = race(load_config(recipe), float(target), float(started), lambda line: print(line, flush=True))
    print(render(report), flush=True)
    Path(out).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
