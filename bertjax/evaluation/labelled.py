"""Judges runs that learned labels or numbers of texts and pairs."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from scipy.special import expit, log_expit, softmax

from bertjax.config import Config, MeshConfig
from bertjax.data.batching.labelled import LabelledBatches
from bertjax.data.examples import Examples, make_examples
from bertjax.data.prepare_task import held_out_rows
from bertjax.data.reader import Item
from bertjax.data.targets import Labels, Scores, Targets
from bertjax.evaluation.classification import judge_labels, judge_several
from bertjax.evaluation.evaluate import own_mesh
from bertjax.evaluation.judgement import Judgement, hardest
from bertjax.evaluation.outputs import outputs_of
from bertjax.evaluation.scoring import judge_ranking, judge_scores
from bertjax.models.bert import make_model
from bertjax.models.classifier import SequenceClassifier
from bertjax.objectives.objective import Params
from bertjax.objectives.sequence_logits import sequence_logits
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params


def make_task_model(config: Config, targets: Targets, mesh: Mesh, *, learning: bool) -> SequenceClassifier:
    """Returns the model that tells targets, for a mesh."""
    bert = make_model(config.model, config.train, learning=learning).clone(mesh=mesh)
    return SequenceClassifier(bert, targets.num_outputs)


class _Told(NamedTuple):
    """What a model tells of n examples, beside what is right."""

    judgement: Judgement
    off_n: np.ndarray  # by how much it is wrong of each
    right: Sequence[str]  # of each, as people read it
    told: Sequence[str]


def judge(
    config: Config,
    targets: Targets,
    examples: Examples,
    batches: LabelledBatches,
    items: Sequence[Item],
    params: Params,
    mesh: Mesh,
) -> Judgement:
    """Returns the figures of parameters on examples.

    Args:
      batches: of the examples.
      items: the texts of each example.
      params: over the mesh.
    """
    model = make_task_model(config, targets, mesh, learning=False)
    logits_nc = outputs_of(functools.partial(sequence_logits, model), params, batches, mesh)
    name, labels_n = examples.name, examples.labels_n
    if not isinstance(targets, Labels):
        found = _numbers(name, targets, logits_nc[:, 0], labels_n, items, ranks=config.task.kind == "rerank")
    else:
        found = (_several if targets.several else _labels)(name, targets, logits_nc, labels_n)
    texts = ["Text"] if all(pair is None for _, pair in items) else ["Text", "Second text"]
    what = "Those where the model is furthest from what is right: often the labels themselves are worth a look."

    def row(number: int) -> list[str]:
        return [*(text for text in items[number] if text is not None), found.right[number], found.told[number]]

    table = hardest(what, [*texts, "Right", "Told"], found.off_n, row)
    return found.judgement._replace(tables=[*found.judgement.tables, table])


def _labels(name: str, targets: Labels, logits_nc: np.ndarray, labels_n: np.ndarray) -> _Told:
    names = np.array(targets.names, object)
    of_right_n1 = np.take_along_axis(softmax(logits_nc, -1), labels_n[:, None], 1)
    judged = judge_labels(name, logits_nc, labels_n, targets.names)
    return _Told(judged, 1 - of_right_n1[:, 0], names[labels_n], names[logits_nc.argmax(-1)])


def _several(name: str, targets: Labels, logits_nc: np.ndarray, has_nc: np.ndarray) -> _Told:
    names = np.array(targets.names, object)
    off_n = -np.where(has_nc > 0, log_expit(logits_nc), log_expit(-logits_nc)).mean(-1)
    right, told = ([", ".join(names[has_c]) for has_c in some_nc] for some_nc in (has_nc > 0, logits_nc > 0))
    return _Told(judge_several(name, logits_nc, has_nc, targets.names), off_n, right, told)


def _numbers(
    name: str, targets: Scores, logits_n: np.ndarray, learned_n: np.ndarray, items: Sequence[Item], *, ranks: bool
) -> _Told:
    told_n, right_n = targets.scores(logits_n), targets.scores(learned_n)
    if ranks:
        told_n = expit(told_n)
        judged = judge_ranking(name, told_n, right_n, [query for query, _ in items])
    else:
        judged = judge_scores(name, told_n, right_n)
    right, told = ([f"{number:.4g}" for number in some_n] for some_n in (right_n, told_n))
    return _Told(judged, np.abs(told_n - right_n), right, told)


def evaluate_labelled(run: RunFolder, path: str | None, mesh: MeshConfig | None) -> Judgement:
    """Judges a run on the examples that it held out, or on others; see `evaluate_task`."""
    config, targets = run.config(), run.targets()
    devices = own_mesh(config, mesh)
    rows, name = held_out_rows(config, path)
    labels_n: np.ndarray = targets.numbers(rows)
    examples = make_examples(rows, labels_n, run.tokenizer(), max_length=config.data.max_length, name=name)
    batch_size, row_length = config.train.batch_size, config.data.row_length
    batches = LabelledBatches(examples, batch_size=batch_size, row_length=row_length, seed=config.seed)
    items, params = [row.item for row in rows], load_params(run, config, devices)
    return judge(config, targets, examples, batches, items, params, devices)
