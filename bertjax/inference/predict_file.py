"""A file of records to one with a prediction beside each."""

import csv
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from bertjax.config import TaskConfig
from bertjax.data.examples import columns_of, item_of, read_records
from bertjax.data.sources.records import Place
from bertjax.errors import BertjaxError
from bertjax.inference.classifier import Classifier

FORMATS = (".csv", ".tsv", ".jsonl")
ADDED = ("prediction", "probability")
_AT_ONCE = 4096  # records that are computed together


def check_format(out: Path) -> None:
    """Raises BertjaxError where predictions cannot be written under this name."""
    if out.suffix not in FORMATS:
        raise BertjaxError(f"--out {out} does not end in {', '.join(FORMATS)}; give a name that does")


def predict_file(classifier: Classifier, task: TaskConfig, source: str, file: IO[str], out: Path) -> str:
    """Writes the columns of each record, its prediction and the prediction's probability; returns a line about it.

    Args:
      task: names the columns of the texts.
      source: files of records, as `find_files` takes them.
      file: what is written to.
      out: its name, whose ending tells its format.

    Raises:
      BertjaxError: a record cannot be read, or has a column of those that are added, or cannot be written so.
    """
    began, number = time.perf_counter(), 0
    write = _writer(file, out)
    read = read_records(source, columns_of(task, labelled=False), "--input")
    while some := list(islice(read, _AT_ONCE)):
        predictions = classifier.predict_items([item_of(task, place, record) for place, record in some])
        for (place, record), prediction in zip(some, predictions, strict=True):
            if there := [column for column in ADDED if column in record]:
                raise BertjaxError(f"{place} has a column {there[0]} already; name it otherwise, or leave it out")
            write(place, record | dict(zip(ADDED, (prediction.label, round(prediction.probability, 6)), strict=True)))
        number += len(some)
    if not number:
        raise BertjaxError(f"{source} has no rows; give --input some")
    seconds = time.perf_counter() - began
    return f"{number:,} texts in {seconds:,.1f} s, {number / seconds:,.0f} texts/s, compilation included; {out}"


def _writer(file: IO[str], out: Path) -> Callable[[Place, dict[str, Any]], None]:
    if out.suffix == ".jsonl":
        return lambda place, record: print(json.dumps(record, ensure_ascii=False, default=str), file=file)
    columns: list[str] = []
    tabs = out.suffix == ".tsv"
    how: dict[str, Any] = {"lineterminator": "\n"}
    table = csv.writer(
        file, **how | ({"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None} if tabs else {})
    )

    def write(place: Place, record: dict[str, Any]) -> None:
        if not columns:
            columns.extend(record)
            table.writerow(columns)
        if more := [column for column in record if column not in columns]:
            raise BertjaxError(f"{place} has a column {more[0]!r} that the first has not; give --out a name in .jsonl")
        try:
            table.writerow(list(_cells(columns, record)))
        except csv.Error:
            raise BertjaxError(f"{place} has a tab or a line end in a field; give --out a name in .csv") from None

    return write


def _cells(columns: list[str], record: dict[str, Any]) -> Iterator[str]:
    for column in columns:
        value = record.get(column)
        yield "" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
