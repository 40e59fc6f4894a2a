"""Held-out figures of a classifier: accuracy, macro F1 and Matthews's correlation, all from one matrix of counts."""

import functools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import MeshConfig
from bertjax.data.batching.labelled import LabelledBatch, LabelledBatches
from bertjax.data.prepare_task import prepare_examples
from bertjax.evaluation.evaluate import own_mesh
from bertjax.models.bert import make_model
from bertjax.models.classifier import SequenceClassifier
from bertjax.objectives.classification import confusion
from bertjax.objectives.objective import Params
from bertjax.parallel.sharding import Rows, by_name, by_rows, place_rows, replicated, rows_here
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params


class Judgement(NamedTuple):
    """Figures of a classifier on some examples."""

    accuracy: float
    macro_f1: float  # the mean of the F1 of each label that is there or was guessed
    mcc: float  # Matthews's correlation, of any number of labels (Gorodkin 2004); 0 where it has no meaning
    commonest: float  # accuracy of guessing the commonest label
    confusion_cc: np.ndarray  # examples of each label, by what was guessed


def judge(confusion_cc: np.ndarray) -> Judgement:
    """Returns the figures of a classifier from its counts, int [labels, guesses]; one example at least."""
    confusion_cc = confusion_cc.astype(np.int64)
    of_label_c, guessed_c, right_c = confusion_cc.sum(1), confusion_cc.sum(0), np.diagonal(confusion_cc)
    total, right = int(of_label_c.sum()), int(right_c.sum())
    both_c = of_label_c + guessed_c
    f1_c = 2 * right_c[both_c > 0] / both_c[both_c > 0]
    spread = [total**2 - sum(count**2 for count in counts.tolist()) for counts in (of_label_c, guessed_c)]
    agreement = right * total - sum(a * b for a, b in zip(of_label_c.tolist(), guessed_c.tolist(), strict=True))
    mcc = agreement / math.sqrt(spread[0] * spread[1]) if all(spread) else 0.0
    return Judgement(right / total, float(f1_c.mean()), mcc, int(of_label_c.max()) / total, confusion_cc)


def count_guesses(
    model: SequenceClassifier, params: Params, batches: Iterable[LabelledBatch], rows: Rows, mesh: Mesh
) -> np.ndarray:
    """Returns the counts of labels and guesses over all the batches, int64 [labels, guesses].

    Args:
      model: for the mesh.
      params: over the mesh.
      batches: the rows `rows.some` of each.
    """
    counted = jax.jit(
        functools.partial(confusion, model),
        in_shardings=(by_name(params, mesh), by_rows(mesh)),
        out_shardings=replicated(mesh),
    )
    total_cc = np.zeros((model.num_labels, model.num_labels), np.int64)
    for batch in batches:
        total_cc += np.asarray(counted(params, place_rows(batch, rows, mesh)))
    return total_cc


class TaskEvaluation(NamedTuple):
    """Figures of a run on some examples."""

    examples: str
    labels: list[str]
    judgement: Judgement


def evaluate_task(folder: str | Path, *, path: str | None = None, mesh: MeshConfig | None = None) -> TaskEvaluation:
    """Judges a run that classifies on the examples that it held out, or on others.

    Args:
      path: of labelled files, with the columns of the run's own.
      mesh: sizes of the mesh; by default the run's own where they suit the devices there are, else by rows alone.

    Raises:
      BertjaxError: not such a run's folder, no checkpoint; or the examples cannot be had, or have other labels.
    """
    run = RunFolder(folder)
    config, labels = run.config(), run.labels()
    devices = own_mesh(config, mesh)
    examples = prepare_examples(config, labels, run.tokenizer(), path)
    batch_size, row_length = config.train.batch_size, config.data.row_length
    batches = LabelledBatches(examples, batch_size=batch_size, row_length=row_length, seed=config.seed)
    bert = make_model(config.model, config.train, learning=False).clone(mesh=devices)
    rows = rows_here(batches.num_rows, devices)
    params = load_params(run, config, devices)
    counts_cc = count_guesses(
        SequenceClassifier(bert, len(labels)), params, batches.first_epoch(rows.some), rows, devices
    )
    return TaskEvaluation(examples.name, labels, judge(counts_cc))


def describe_judgement(name: str, judgement: Judgement) -> str:
    """Returns the figures in a line.

    Args:
      name: of the examples.
    """
    return (
        f"{name}, {judgement.confusion_cc.sum():,} examples: accuracy {judgement.accuracy:.2%}, macro F1 "
        f"{judgement.macro_f1:.4f}, MCC {judgement.mcc:.4f}; the commonest label alone has {judgement.commonest:.2%}"
    )


def render(evaluation: TaskEvaluation, *, most: int = 20) -> str:
    """Returns the figures as `bertjax evaluate` prints them, by label too.

    Args:
      most: labels that are shown, those that are there most often.
    """
    name, labels, judgement = evaluation
    counts_cc = judgement.confusion_cc
    width = max(10, *(len(label) for label in labels))
    lines = [
        describe_judgement(name, judgement),
        f"  {'label':<{width}}{'examples':>10}{'found':>9}{'right of guessed':>18}",
    ]
    for number in sorted(range(len(labels)), key=lambda number: -counts_cc[number].sum())[:most]:
        there, guessed, right = counts_cc[number].sum(), counts_cc[:, number].sum(), counts_cc[number, number]
        shares = (f"{right / count:.1%}" if count else "-" for count in (there, guessed))
        lines.append(f"  {labels[number]:<{width}}{there:>10,}" + "{:>9}{:>18}".format(*shares))
    return "\n".join(lines)


def as_json(evaluation: TaskEvaluation) -> str:
    """Returns all figures as JSON."""
    figures: dict[str, Any] = evaluation.judgement._asdict()
    figures["confusion"] = figures.pop("confusion_cc").tolist()
    return json.dumps({"examples": evaluation.examples, "labels": evaluation.labels, **figures}, indent=2) + "\n"
