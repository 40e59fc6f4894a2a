"""Held-out figures of fine-tuned runs, whatever their task."""

from collections.abc import Callable
from pathlib import Path

from bertjax.config import MeshConfig
from bertjax.errors import BertjaxError
from bertjax.evaluation.answering import evaluate_answering
from bertjax.evaluation.judgement import Judgement
from bertjax.evaluation.labelled import evaluate_labelled
from bertjax.evaluation.retrieval import evaluate_embedding
from bertjax.evaluation.tagging import evaluate_tagging
from bertjax.runs.folder import RunFolder
from bertjax.runs.remote_run import fetched_run

_EVALUATIONS: dict[str, Callable[[RunFolder, str | None, MeshConfig | None], Judgement]] = {
    "classify": evaluate_labelled,
    "score": evaluate_labelled,
    "rerank": evaluate_labelled,
    "embed": evaluate_embedding,
    "tag": evaluate_tagging,
    "answer": evaluate_answering,
}


def evaluate_task(folder: str | Path, *, path: str | None = None, mesh: MeshConfig | None = None) -> Judgement:
    """Judges a fine-tuned run on the examples that it held out, or on others.

    Args:
      path: of files of examples, with the columns of the run's own.
      mesh: sizes of the mesh; by default the run's own where they suit the devices there are, else by rows alone.

    Raises:
      BertjaxError: not such a run's folder, no checkpoint; or the examples cannot be had, or have other labels.
    """
    run = RunFolder(fetched_run(folder))
    if (kind := run.config().task.kind) not in _EVALUATIONS:
        raise BertjaxError(f"{run.path} is a run of task.kind={kind}; give one of {', '.join(_EVALUATIONS)}")
    return _EVALUATIONS[kind](run, path, mesh)
