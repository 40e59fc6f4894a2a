"""Held-out losses and accuracies."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from bertjax.config import Objective, Split
from bertjax.data.batches import Batch
from bertjax.data.prepare import prepare_held_out
from bertjax.losses import RunningMeans
from bertjax.model import Bert, make_model, params_template
from bertjax.run import RunFolder
from bertjax.sharding import Rows, by_name, by_rows, make_mesh, place_rows, replicated, rows_here
from bertjax.train import Metrics, batch_metrics

EvalStep = Callable[[dict[str, Any], Batch], Metrics]


def compile_eval_step(mesh: Mesh, model: Bert) -> EvalStep:
    """`batch_metrics` without dropout, jitted over the mesh."""
    return jax.jit(
        functools.partial(batch_metrics, model.clone(mesh=mesh)),
        in_shardings=(by_name(params_template(model), mesh), by_rows(mesh)),
        out_shardings=replicated(mesh),
    )


def evaluate(
    eval_step: EvalStep, params: dict[str, Any], batches: Iterable[Batch], rows: Rows, mesh: Mesh
) -> dict[str, float]:
    """The mean of each metric over all the batches: losses in nats, accuracies as shares.

    Args:
      batches: of each, these `rows`.
    """
    running = RunningMeans()
    pending: Metrics = {}
    for batch in batches:
        metrics = eval_step(params, place_rows(batch, rows, mesh))
        running.add(jax.device_get(pending))  # a batch late: the host makes the next while the device is at this one
        pending = metrics
    running.add(jax.device_get(pending))
    return running.means()


class Evaluation(NamedTuple):
    """Of a run on a corpus."""

    corpus: str
    num_sequences: int
    means: dict[str, float]
    objective: Objective


def evaluate_run(folder: str | Path, *, split: Split | None = None, path: str | None = None) -> Evaluation:
    """The means of a run's newest parameters on the held-out corpus.

    Args:
      split: another split than the one the run held out.
      path: where the text is now, as `data.path`.

    Raises:
      BertjaxError: not a run's folder, no checkpoint, or the text cannot be had.
    """
    run = RunFolder(folder)
    config = run.config()
    data = dataclasses.replace(config.data, eval_split=split or config.data.eval_split, path=path or config.data.path)
    config = dataclasses.replace(config, data=data)
    mesh, model = make_mesh(), make_model(config.model, config.train)
    corpus, batches = prepare_held_out(config, run.tokenizer())
    params = run.load_params(model, mesh)
    rows = rows_here(batches.num_rows, mesh)
    means = evaluate(compile_eval_step(mesh, model), params, batches.first_epoch(rows.some), rows, mesh)
    return Evaluation(corpus.name, batches.num_sequences, means, data.objective)
