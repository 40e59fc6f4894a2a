"""Held-out losses and accuracies."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from bertjax.config import Split
from bertjax.data.batches import Batch
from bertjax.data.prepare import held_out_batches, prepare
from bertjax.model import Bert
from bertjax.run import RunFolder
from bertjax.sharding import by_rows, data_mesh, place_batch, replicated
from bertjax.train import Metrics, batch_metrics

EvalStep = Callable[[dict[str, Any], Batch], Metrics]


def compile_eval_step(mesh: Mesh, model: Bert) -> EvalStep:
    """`batch_metrics` without dropout, jitted over the mesh."""
    return jax.jit(
        functools.partial(batch_metrics, model),
        in_shardings=(replicated(mesh), by_rows(mesh)),
        out_shardings=replicated(mesh),
    )


def evaluate(eval_step: EvalStep, params: dict[str, Any], batches: Iterable[Batch], mesh: Mesh) -> dict[str, float]:
    """The mean of each metric over all the batches: losses in nats, accuracies as shares."""
    totals: dict[str, float] = collections.defaultdict(float)
    weights: dict[str, float] = collections.defaultdict(float)

    def add(metrics: Metrics) -> None:
        for name, mean in metrics.items():
            totals[name] += float(mean.total)
            weights[name] += float(mean.weight)

    previous: Metrics = {}
    for batch in batches:
        metrics = eval_step(params, place_batch(batch, mesh))
        add(previous)  # a batch late: the host makes the next one while the device computes this one
        previous = metrics
    add(previous)
    return {name: totals[name] / max(weights[name], 1.0) for name in totals}


def evaluate_run(
    folder: str | Path, *, split: Split | None = None, path: str | None = None
) -> tuple[str, int, dict[str, float]]:
    """Name of the held-out corpus, its pairs, and the means of a run's newest parameters on them.

    Args:
      split: another split than the one the run held out.
      path: where the text is now, as `data.path`.

    Raises:
      BertjaxError: not a run's folder, no checkpoint, or the text cannot be had.
    """
    run = RunFolder(folder)
    config = run.config()
    data = dataclasses.replace(config.data, eval_split=split or config.data.eval_split, path=path or config.data.path)
    prepared = prepare(dataclasses.replace(config, data=data), run.tokenizer())
    mesh, model = data_mesh(), Bert(config.model)
    params = run.load_params(model, replicated(mesh))
    batches = held_out_batches(prepared)
    means = evaluate(compile_eval_step(mesh, model), params, batches.first_epoch(), mesh)
    return prepared.held_out.name, batches.num_pairs, means
