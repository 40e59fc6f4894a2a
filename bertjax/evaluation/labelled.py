"""Judges runs that learned labels or numbers of texts and pairs."""

import functools
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from scipy.special import expit

from bertjax.config import Config, MeshConfig
from bertjax.data.batching.labelled import LabelledBatches
from bertjax.data.examples import Examples, make_examples
from bertjax.data.prepare_task import held_out_rows
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


def make_task_model(config: Config, targets: Targets, mesh: Mesh, *, learning: bool) -> SequenceClassifier:
    """Returns the model that tells targets, for a mesh."""
    bert = make_model(config.model, config.train, learning=learning).clone(mesh=mesh)
    return SequenceClassifier(bert, targets.num_outputs)


def judge(
    config: Config,
    targets: Targets,
    examples: Examples,
    batches: LabelledBatches,
    queries: Sequence[str],
    params: Params,
    mesh: Mesh,
) -> Judgement:
    """Returns the figures of parameters on examples.

    Args:
      batches: of the examples.
      queries: the first text of each example.
      params: over the mesh.
    """
    told = functools.partial(sequence_logits, make_task_model(config, targets, mesh, learning=False))
    logits_nc = outputs_of(told, params, batches, mesh)
    if isinstance(targets, Labels):
        judge_them = judge_several if targets.several else judge_labels
        return judge_them(examples.name, logits_nc, examples.labels_n, targets.names)
    told_n = logits_nc[:, 0]
    if config.task.kind == "rerank":
        return judge_ranking(examples.name, expit(told_n), examples.labels_n, queries)
    return judge_scores(examples.name, targets.scores(told_n), targets.scores(examples.labels_n))


def evaluate_labelled(run: RunFolder, path: str | None, mesh: MeshConfig | None) -> Judgement:
    """Judges a run on the examples that it held out, or on others; see `evaluate_task`."""
    config, targets = run.config(), run.targets()
    devices = own_mesh(config, mesh)
    rows, name = held_out_rows(config, path)
    labels_n: np.ndarray = targets.numbers(rows)
    examples = make_examples(rows, labels_n, run.tokenizer(), max_length=config.data.max_length, name=name)
    batch_size, row_length = config.train.batch_size, config.data.row_length
    batches = LabelledBatches(examples, batch_size=batch_size, row_length=row_length, seed=config.seed)
    queries, params = [row.item[0] for row in rows], load_params(run, config, devices)
    return judge(config, targets, examples, batches, queries, params, devices)
