"""A file of texts to one with a prediction beside each."""

import functools
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import IO, Any

from bertjax.config import MeshConfig, TaskConfig
from bertjax.data.examples import columns_of, item_of, read_records
from bertjax.data.sources.records import Place
from bertjax.data.sources.splits import find_split
from bertjax.data.targets import Labels
from bertjax.errors import BertjaxError
from bertjax.hub.folder import is_hub_folder, read_task_head
from bertjax.inference import answer_file, record_files, tag_file
from bertjax.inference.answerer import Answerer
from bertjax.inference.classifier import Classifier
from bertjax.inference.matcher import Matcher
from bertjax.inference.programs import Precision
from bertjax.inference.record_files import record_writer
from bertjax.inference.tagger import Tagger
from bertjax.storage.fetch import here

FORMATS = (*record_files.TABLES, *record_files.RECORDS)
_AT_ONCE = 4096  # records that are computed together

Records = list[tuple[Place, dict[str, Any]]]

Predictor = Callable[[str, IO[Any], Path], int]
"""A trained model that reads files, as `find_files` takes them, and writes to an open file of a name, whose ending
tells the format, what is in them and what it tells of it. It returns the number of texts."""


def task_of(folder: Path) -> TaskConfig:
    """Returns the task of a run, or that of a Hugging Face folder's head, with the usual names of columns.

    Raises BertjaxError where there is none.
    """
    if not is_hub_folder(folder):
        from bertjax.runs.folder import RunFolder

        return RunFolder(folder).config().task
    kind, targets = read_task_head(folder)
    if kind == "rerank":
        return TaskConfig(kind, text="query", pair="passage")
    if kind == "tag":
        return TaskConfig(kind, text="words", label="tags")
    if kind == "answer":
        return TaskConfig(kind, text="question", pair="context", label="answers")
    several = isinstance(targets, Labels) and targets.several
    return TaskConfig(kind, label_separator="|" if several else None)


def load_predictor(
    folder: Path, task: TaskConfig, *, precision: Precision, mesh: MeshConfig | None, calibrated: bool = False
) -> Predictor:
    """Returns what tells labels, numbers, tags or answers of files, as a run's kind has it.

    Args:
      task: the run's own, but for the columns' names.
      precision, mesh, calibrated: as for `Classifier.load`.

    Raises:
      BertjaxError: as `Classifier.load` does; or of another task calibrated probabilities are asked for.
    """
    if task.kind == "embed":
        raise BertjaxError(f"{folder} makes vectors of texts, and predicts nothing; 'bertjax encode' writes them")
    if task.kind not in _PREDICTORS:
        known = ", ".join(_PREDICTORS)
        raise BertjaxError(f"{folder} is a run of task.kind={task.kind} and predicts nothing; give one of {known}")
    if calibrated and task.kind != "classify":
        raise BertjaxError(f"calibrated probabilities are of task.kind=classify, and {folder} is of {task.kind}")
    if calibrated:
        return _labels(folder, task, precision, mesh, calibrated=True)
    return _PREDICTORS[task.kind](folder, task, precision, mesh)


def _labels(
    folder: Path, task: TaskConfig, precision: Precision, mesh: MeshConfig | None, *, calibrated: bool = False
) -> Predictor:
    classifier = Classifier.load(folder, precision=precision, mesh=mesh, calibrated=calibrated)
    separator = task.label_separator

    def predict(some: Records) -> list[tuple[Any, ...]]:
        probabilities_nc = classifier.probabilities_of([item_of(task, place, record) for place, record in some])
        told = [dict(zip(classifier.labels, map(_rounded, of_text), strict=True)) for of_text in probabilities_nc]
        if separator is None:
            return [max(of_text.items(), key=lambda one: one[1]) for of_text in told]
        return [(separator.join(label for label, p in of_text.items() if p > 0.5), of_text) for of_text in told]

    return functools.partial(_write_records, task, ("prediction", "probability"), predict)


def _numbers(folder: Path, task: TaskConfig, precision: Precision, mesh: MeshConfig | None) -> Predictor:
    matcher = Matcher.load(folder, precision=precision, mesh=mesh)

    def predict(some: Records) -> list[tuple[Any, ...]]:
        return [(_rounded(one),) for one in matcher.numbers_of([item_of(task, *of_record) for of_record in some])]

    return functools.partial(_write_records, task, ("prediction",), predict)


def _tags(folder: Path, task: TaskConfig, precision: Precision, mesh: MeshConfig | None) -> Predictor:
    return functools.partial(tag_file.tag_file, Tagger.load(folder, precision=precision, mesh=mesh), task)


def _answers(folder: Path, task: TaskConfig, precision: Precision, mesh: MeshConfig | None) -> Predictor:
    return functools.partial(answer_file.answer_file, Answerer.load(folder, precision=precision, mesh=mesh), task)


_PREDICTORS: dict[str, Callable[[Path, TaskConfig, Precision, MeshConfig | None], Predictor]] = {
    "classify": _labels,
    "score": _numbers,
    "rerank": _numbers,
    "tag": _tags,
    "answer": _answers,
}


def _rounded(number: Any) -> float:
    return round(float(number), 6)


def check_format(out: Path, kind: str) -> None:
    """Raises BertjaxError where predictions of a kind of task cannot be written under this name."""
    formats = {"tag": tag_file.FORMATS, "answer": answer_file.FORMATS}
    record_files.check_format(out, formats.get(kind, FORMATS))


def predict_file(predictor: Predictor, source: str, file: IO[Any], out: Path) -> str:
    """Writes what files hold and what is predicted of it; returns a line about it.

    Args:
      source: files, as `find_files` takes them, or at URLs; of a folder of splits its test split.
      file: what is written to, bytes where the format is binary.
      out: its name, whose ending tells its format.

    Raises:
      BertjaxError: a record cannot be read, or has a column of those that are added, or cannot be written so.
    """
    began = time.perf_counter()
    number = predictor(find_split(here(source), "test", "--input"), file, out)
    seconds = time.perf_counter() - began
    return f"{number:,} texts in {seconds:,.1f} s, {number / seconds:,.0f} texts/s, compilation included; {out}"


def _write_records(
    task: TaskConfig,
    added: tuple[str, ...],
    predict: Callable[[Records], list[tuple[Any, ...]]],
    source: str,
    file: IO[Any],
    out: Path,
) -> int:
    """Writes the columns of each record, and of those that are added what `predict` tells of it."""
    number, read = 0, read_records(source, columns_of(task, labelled=False), "--input", task.columns)
    with record_writer(file, out) as write:
        while some := list(islice(read, _AT_ONCE)):
            for (place, record), values in zip(some, predict(some), strict=True):
                if there := [column for column in added if column in record]:
                    raise BertjaxError(f"{place} has a column {there[0]} already; name it otherwise, or leave it out")
                write(place, record | dict(zip(added, values, strict=True)))
            number += len(some)
    if not number:
        raise BertjaxError(f"{source} has no rows; give --input some")
    return number
