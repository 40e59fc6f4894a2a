"""Held-out losses and accuracies."""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import HEADS, Config, DataConfig, MeshConfig, Split
from bertjax.config import Objective as ObjectiveName
from bertjax.data.batching.batches import Half
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.prepare import prepare_held_out
from bertjax.data.statistics.frequencies import CLASSES, word_classes
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.models.bert import make_model
from bertjax.objectives.metrics import Metrics, RunningMeans
from bertjax.objectives.objective import Bound, Objective, Params
from bertjax.objectives.pretraining import metrics_by_class, pretraining_objective
from bertjax.parallel.sharding import Rows, by_name, by_rows, find_devices, make_mesh, place_rows, replicated, rows_here
from bertjax.runs.folder import RunFolder
from bertjax.runs.metrics import figures
from bertjax.runs.parameters import load_params
from bertjax.runs.remote_run import fetched_run

_logger = logging.getLogger(__name__)

EvalStep = Callable[[Params, Any], Metrics]


def compile_eval_step(mesh: Mesh, objective: Objective) -> EvalStep:
    """Jits an objective's metrics over the mesh, without dropout.

    Args:
      objective: one made for this mesh.
    """
    template = jax.eval_shape(objective.init, jax.random.key(0))
    program = jax.jit(
        lambda params, batch, constants: objective.holding(constants).metrics(params, batch, None),
        in_shardings=(by_name(template, mesh), by_rows(mesh), by_name(objective.constants, mesh)),
        out_shardings=replicated(mesh),
    )
    return Bound(program, objective.constants)


def evaluate(eval_step: EvalStep, params: Params, batches: Iterable[Any], rows: Rows, mesh: Mesh) -> dict[str, float]:
    """Returns the mean of each metric over all the batches: losses in nats, accuracies as shares.

    Args:
      params: over the mesh.
      batches: the rows `rows.some` of each.
    """
    return _run_through(eval_step, params, batches, rows, mesh).means()


def _run_through(eval_step: EvalStep, params: Params, batches: Iterable[Any], rows: Rows, mesh: Mesh) -> RunningMeans:
    running = RunningMeans()
    pending: Metrics = {}
    for batch in batches:
        metrics = eval_step(params, place_rows(batch, rows, mesh))
        running.add(jax.device_get(pending))  # a batch late: the host makes the next while the device is at this one
        pending = metrics
    running.add(jax.device_get(pending))
    return running


class OfClass(NamedTuple):
    """Figures of the words to predict that are of one class."""

    predictions: int
    loss: float
    accuracy: float


class Evaluation(NamedTuple):
    """Held-out figures of a run on a corpus."""

    corpus: str
    num_sequences: int
    means: dict[str, float]
    objective: ObjectiveName
    half: Half | None
    classes: dict[str, OfClass]  # those of `frequencies.CLASSES` that were to predict; none where a run lacks counts
    same_text: bool | None  # as the run read; None where it does not tell, as of a split that it left alone


def evaluate_run(
    folder: str | Path,
    *,
    split: Split | None = None,
    path: str | None = None,
    eval_path: str | None = None,
    other_text: bool = False,
    half: Half | None = None,
    mlm_probability: float | None = None,
    mesh: MeshConfig | None = None,
) -> Evaluation:
    """Evaluates a run's newest parameters on the held-out corpus.

    Args:
      split: another split than the one the run held out.
      path: where the text is now, as `data.path`.
      eval_path: where held-out files of their own are now, as `data.eval_path`.
      other_text: evaluate on this text though it is not the one that the run held out.
      mlm_probability: share of the words to predict, in place of the run's own, to compare runs at several.
      mesh: sizes of the mesh; by default the run's own where they suit the devices there are, else by rows alone.
      half: every other pair alone. A recipe chosen by one half is told of by the other.

    Raises:
      BertjaxError: not a run's folder, no checkpoint; or the text cannot be had, or has changed since the run.
    """
    run = RunFolder(fetched_run(folder))
    config = run.config()
    data = dataclasses.replace(
        config.data,
        eval_split=split or config.data.eval_split,
        path=path or config.data.path,
        eval_path=eval_path or config.data.eval_path,
        fallback=None,  # another text would be judged than the run's
    )
    of_eval = dataclasses.replace(
        config.eval, mlm_probability=config.eval.mlm_probability if mlm_probability is None else mlm_probability
    )
    config = dataclasses.replace(config, data=data, eval=of_eval)
    devices = own_mesh(config, mesh)
    corpus, batches = prepare_held_out(config, run.tokenizer())
    same_text = is_same(run, data.eval_split, corpus)
    if same_text is False and not other_text:
        raise BertjaxError(
            f"{corpus.name} is not the text that {run.path} was made with: it has changed, or is somewhere else; give "
            "the same as data.path or data.eval_path, or evaluate on this one by other_text"
        )
    params = load_params(run, config, devices)
    rows = rows_here(batches.num_rows, devices)
    some = batches.first_epoch(rows.some, half)
    means, classes = evaluate_by_class(config, params, some, rows, devices, run.word_counts(), run.tokenizer())
    return Evaluation(corpus.name, len(batches.numbers(half)), means, data.objective, half, classes, same_text)


def evaluate_by_class(
    config: Config,
    params: Params,
    batches: Iterable[Any],
    rows: Rows,
    mesh: Mesh,
    counts_v: np.ndarray | None,
    tokenizer: Tokenizer,
) -> tuple[dict[str, float], dict[str, OfClass]]:
    """Returns the mean of each metric, and the MLM figures of each class of words.

    Args:
      params: over the mesh.
      batches: the rows `rows.some` of each.
      counts_v: of the training text, which make the classes; None where they are not known, and there are no classes.
    """
    model = make_model(config.model, config.train, learning=False).clone(mesh=mesh)
    objective = pretraining_objective(model)
    if counts_v is not None:
        objective = metrics_by_class(objective, model, word_classes(counts_v, tokenizer), CLASSES)
    running = _run_through(compile_eval_step(mesh, objective), params, batches, rows, mesh)
    means, weights = running.means(), running.weights()
    classes = {
        name: OfClass(
            round(weights[f"{name} mlm_loss"]), means.pop(f"{name} mlm_loss"), means.pop(f"{name} mlm_accuracy")
        )
        for name in CLASSES
        if f"{name} mlm_loss" in means
    }
    return means, classes


def is_same(run: RunFolder, split: Split, corpus: Corpus) -> bool | None:
    """Tells whether the run read this as its split; None where it does not tell."""
    its_own = run.config().data
    try:
        recorded = dict(zip((its_own.train_split, its_own.eval_split), run.digests(), strict=True))
    except BertjaxError as error:  # of no other use here
        _logger.warning(f"whether {corpus.name} has changed since the run is not known: {error}")
        return None
    return recorded[split] == corpus.digest if split in recorded else None


def own_mesh(config: Config, asked: MeshConfig | None = None) -> Mesh:
    """Returns the mesh that was asked for, or the run's own, or by rows alone where that is of other devices."""
    devices = len(find_devices())
    if asked is not None:
        return make_mesh(*dataclasses.replace(config, mesh=asked).mesh_sizes(devices))
    try:
        return make_mesh(*config.mesh_sizes(devices))
    except BertjaxError as error:
        _logger.info(f"NOTICE:   the run's own mesh does not suit ({error}): evaluated by rows alone")
        return make_mesh()


def render(evaluation: Evaluation) -> str:
    """Returns the figures as `bertjax evaluate` prints them."""
    corpus, count, means, objective, half, classes, same_text = evaluation
    sequences = DataConfig(objective=objective).sequences
    some = f"the {count:,} {half} ones of its {sequences}" if half else f"{count:,} {sequences}"
    lines = [f"{corpus}, {some}, masks fixed" + (", another text than the run's" if same_text is False else "")]
    lines += [f"  {head.described(digits=4)}" for head in figures(means, HEADS[objective])]
    if not classes:
        return "\n".join([*lines, "figures by class of words are of runs that keep word_counts.npy, as new ones do"])
    lines.append(f"{'  words to predict':<20}{'predictions':>12}{'MLM loss':>10}{'accuracy':>10}")
    lines += [f"    {name:<16}{n:>12,}{loss:>10.4f}{accuracy:>10.2%}" for name, (n, loss, accuracy) in classes.items()]
    return "\n".join(lines)


def as_json(evaluation: Evaluation) -> str:
    """Returns all figures as JSON."""
    classes = {name: of_class._asdict() for name, of_class in evaluation.classes.items()}
    return json.dumps(evaluation._asdict() | {"classes": classes}, indent=2) + "\n"
