"""Judges runs that learned labels or numbers of texts and pairs."""

import functools
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from scipy.special import expit, log_expit, softmax

from bertjax.config import Config, MeshConfig
from bertjax.data.batching.labelled import LabelledBatches
from bertjax.data.examples import Examples, make_examples
from bertjax.data.prepare_task import held_out_rows
from bertjax.data.reader import Item
from bertjax.data.targets import Labels, Targets
from bertjax.evaluation.classification import judge_labels, judge_several
from bertjax.evaluation.evaluate import own_mesh
from bertjax.evaluation.judgement import Judgement
from bertjax.evaluation.outputs import outputs_of
from bertjax.evaluation.scoring import judge_ranking, judge_scores
from bertjax.models.bert import make_model
from bertjax.models.classifier import SequenceClassifier
from bertjax.objectives.objective import Params
from bertjax.objectives.sequence_logits import sequence_logits
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params
from bertjax.runs.report import Table

_HARDEST, _CHARACTERS = 20, 300  # examples in a report, and what it shows of a text


def make_task_model(config: Config, targets: Targets, mesh: Mesh, *, learning: bool) -> SequenceClassifier:
    """Returns the model that tells targets, for a mesh."""
    bert = make_model(config.model, config.train, learning=learning).clone(mesh=mesh)
    return SequenceClassifier(bert, targets.num_outputs)


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
    if isinstance(targets, Labels):
        names = np.array(targets.names, object)
        if targets.several:
            judged = judge_several(name, logits_nc, labels_n, targets.names)
            off_n = -np.where(labels_n > 0, log_expit(logits_nc), log_expit(-logits_nc)).mean(-1)
            wanted, told = ([", ".join(names[has_c]) for has_c in some] for some in (labels_n > 0, logits_nc > 0))
        else:
            judged, probabilities_nc = judge_labels(name, logits_nc, labels_n, targets.names), softmax(logits_nc, -1)
            off_n = 1 - np.take_along_axis(probabilities_nc, labels_n[:, None], 1)[:, 0]
            wanted, told = list(names[labels_n]), list(names[logits_nc.argmax(-1)])
    else:
        told_n, right_n = targets.scores(logits_nc[:, 0]), targets.scores(labels_n)
        if config.task.kind == "rerank":
            told_n = expit(told_n)
            judged = judge_ranking(name, told_n, right_n, [query for query, _ in items])
        else:
            judged = judge_scores(name, told_n, right_n)
        off_n = np.abs(told_n - right_n)
        wanted, told = ([f"{number:.4g}" for number in some] for some in (right_n, told_n))
    hardest = [
        [*(text for text in items[n] if text is not None), wanted[n], told[n]]
        for n in np.argsort(-off_n, kind="stable")[:_HARDEST]
    ]
    texts = ["Text"] if all(pair is None for _, pair in items) else ["Text", "Second text"]
    what = "Those where the model is furthest from what is right: often the labels themselves are worth a look."
    table = Table("Hardest examples", what, [*texts, "Right", "Told"], [[*map(_short, row)] for row in hardest])
    return judged._replace(tables=[*judged.tables, table])


def _short(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} …"


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
