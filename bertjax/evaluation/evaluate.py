"""Held-out losses and accuracies."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bertjax.config import HEADS, DataConfig, Objective, Split
from bertjax.data.batching.batch import Batch
from bertjax.data.batching.batches import Half
from bertjax.data.prepare import prepare_held_out
from bertjax.data.statistics.frequencies import CLASSES, word_classes
from bertjax.models.bert import Bert, make_model, params_template
from bertjax.objectives.metrics import Metrics, RunningMeans
from bertjax.objectives.pretraining import apply_heads, batch_metrics, compute_metrics
from bertjax.parallel.sharding import Rows, by_name, by_rows, make_mesh, place_rows, replicated, rows_here
from bertjax.runs.folder import RunFolder
from bertjax.runs.metrics import figures
from bertjax.runs.parameters import load_params

EvalStep = Callable[[dict[str, Any], Batch], Metrics]


def compile_eval_step(mesh: Mesh, model: Bert) -> EvalStep:
    """`batch_metrics` without dropout, jitted over the mesh."""
    return jax.jit(
        functools.partial(batch_metrics, model.clone(mesh=mesh)),
        in_shardings=(by_name(params_template(model), mesh), by_rows(mesh)),
        out_shardings=replicated(mesh),
    )


def compile_eval_step_by_class(mesh: Mesh, model: Bert, classes_v: np.ndarray) -> EvalStep:
    """As `compile_eval_step`, with the MLM loss and accuracy of each class of words too.

    Args:
      classes_v: the place in `frequencies.CLASSES` of each token that may be a label.
    """
    return jax.jit(
        functools.partial(_metrics_by_class, model.clone(mesh=mesh), classes_v),
        in_shardings=(by_name(params_template(model), mesh), by_rows(mesh)),
        out_shardings=replicated(mesh),
    )


def _metrics_by_class(model: Bert, classes_v: np.ndarray, params: dict[str, Any], batch: Batch) -> Metrics:
    """Each prediction is judged twice, among all and in its class: the head leaves out what has no weight."""
    predictions = apply_heads(model, params, batch)
    metrics = compute_metrics(model, predictions, batch)
    class_bp = jnp.asarray(classes_v)[batch.mlm_labels_bp]
    for number, name in enumerate(CLASSES):
        weights_bp = batch.mlm_weights_bp * (class_bp == number)
        its = compute_metrics(model, predictions, batch._replace(mlm_weights_bp=weights_bp))
        metrics |= {f"{name} {figure}": its[figure] for figure in ("mlm_loss", "mlm_accuracy")}
    return metrics


def evaluate(
    eval_step: EvalStep, params: dict[str, Any], batches: Iterable[Batch], rows: Rows, mesh: Mesh
) -> dict[str, float]:
    """The mean of each metric over all the batches: losses in nats, accuracies as shares.

    Args:
      batches: of each, these `rows`.
    """
    return _run_through(eval_step, params, batches, rows, mesh).means()


def _run_through(
    eval_step: EvalStep, params: dict[str, Any], batches: Iterable[Batch], rows: Rows, mesh: Mesh
) -> RunningMeans:
    running = RunningMeans()
    pending: Metrics = {}
    for batch in batches:
        metrics = eval_step(params, place_rows(batch, rows, mesh))
        running.add(jax.device_get(pending))  # a batch late: the host makes the next while the device is at this one
        pending = metrics
    running.add(jax.device_get(pending))
    return running


class OfClass(NamedTuple):
    """The words to predict that are of one class."""

    predictions: int
    loss: float
    accuracy: float


class Evaluation(NamedTuple):
    """Of a run on a corpus."""

    corpus: str
    num_sequences: int
    means: dict[str, float]
    objective: Objective
    half: Half | None
    classes: dict[str, OfClass]  # those of `frequencies.CLASSES` that were to predict; none where a run lacks counts


def evaluate_run(
    folder: str | Path,
    *,
    split: Split | None = None,
    path: str | None = None,
    half: Half | None = None,
    mlm_probability: float | None = None,
) -> Evaluation:
    """The means of a run's newest parameters on the held-out corpus.

    Args:
      split: another split than the one the run held out.
      path: where the text is now, as `data.path`.
      mlm_probability: share of the words to predict, in place of the run's own, to compare runs at several.
      half: every other pair alone. A recipe chosen by one half is told of by the other.

    Raises:
      BertjaxError: not a run's folder, no checkpoint, or the text cannot be had.
    """
    run = RunFolder(folder)
    config = run.config()
    data = dataclasses.replace(
        config.data,
        eval_split=split or config.data.eval_split,
        path=path or config.data.path,
        fallback=None,  # another text would be judged than the run's
    )
    of_eval = dataclasses.replace(
        config.eval, mlm_probability=config.eval.mlm_probability if mlm_probability is None else mlm_probability
    )
    config = dataclasses.replace(config, data=data, eval=of_eval)
    mesh, model = make_mesh(), make_model(config.model, config.train)
    corpus, batches = prepare_held_out(config, run.tokenizer())
    params = load_params(run, model, mesh)
    rows = rows_here(batches.num_rows, mesh)
    counts_v = run.word_counts()
    if counts_v is None:
        eval_step = compile_eval_step(mesh, model)
    else:
        eval_step = compile_eval_step_by_class(mesh, model, word_classes(counts_v, run.tokenizer()))
    running = _run_through(eval_step, params, batches.first_epoch(rows.some, half), rows, mesh)
    means, weights = running.means(), running.weights()
    classes = {
        name: OfClass(
            round(weights[f"{name} mlm_loss"]), means.pop(f"{name} mlm_loss"), means.pop(f"{name} mlm_accuracy")
        )
        for name in CLASSES
        if f"{name} mlm_loss" in means
    }
    return Evaluation(corpus.name, len(batches.numbers(half)), means, data.objective, half, classes)


def render(evaluation: Evaluation) -> str:
    """What `bertjax evaluate` prints."""
    corpus, count, means, objective, half, classes = evaluation
    sequences = DataConfig(objective=objective).sequences
    some = f"the {count:,} {half} ones of its {sequences}" if half else f"{count:,} {sequences}"
    lines = [f"{corpus}, {some}, masks fixed"]
    lines += [
        f"  {name} loss {loss:.4f}, accuracy {accuracy:.2%}"
        for name, loss, accuracy in figures(means, HEADS[objective])
    ]
    if not classes:
        return "\n".join([*lines, "figures by class of words are of runs that keep word_counts.npy, as new ones do"])
    lines.append(f"{'  words to predict':<20}{'predictions':>12}{'MLM loss':>10}{'accuracy':>10}")
    lines += [f"    {name:<16}{n:>12,}{loss:>10.4f}{accuracy:>10.2%}" for name, (n, loss, accuracy) in classes.items()]
    return "\n".join(lines)


def as_json(evaluation: Evaluation) -> str:
    """The figures in full."""
    classes = {name: of_class._asdict() for name, of_class in evaluation.classes.items()}
    return json.dumps(evaluation._asdict() | {"classes": classes}, indent=2) + "\n"
