"""Records written in each format: what is read again is what was written, or a line says why it cannot be."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from bertjax.data.sources.lines import Part
from bertjax.data.sources.records import Place
from bertjax.errors import BertjaxError
from bertjax.inference import record_files
from bertjax.inference.record_files import record_writer

RECORDS: list[dict[str, Any]] = [{"text": "a\tb", "n": 1, "x": None}, {"text": 'c "d",\ne', "n": 0.5, "x": ["é"]}]


def written(records: list[dict[str, Any]], name: str) -> bytes:
    binary, text = io.BytesIO(), io.StringIO(newline="")
    file: Any = binary if name.endswith(".parquet") else text
    with record_writer(file, Path(name)) as write:
        for number, record in enumerate(records, 1):
            write(Place(Part("in.jsonl"), "record", number), record)
    return binary.getvalue() or text.getvalue().encode()


def read_again(name: str, content: bytes) -> list[dict[str, Any]]:
    if name.endswith(".parquet"):
        return pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in content.decode().splitlines()]
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


@pytest.mark.parametrize("rows_at_once", [1, 4096])
def test_what_is_written_is_read_again(rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "_ROWS_AT_ONCE", rows_at_once)  # a column may have its kind from a later group
    for name in ("out.parquet", "out.jsonl"):
        assert read_again(name, written(RECORDS, name)) == RECORDS
    table = [{"text": "a\tb", "n": "1", "x": ""}, {"text": 'c "d",\ne', "n": "0.5", "x": '["é"]'}]
    assert read_again("out.csv", written(RECORDS, "out.csv")) == table
    more = [{"a": 1}, {"a": 2, "b": "x"}, {"b": "y"}]  # as records of JSON may be
    assert read_again("o.parquet", written(more, "o.parquet")) == [{"a": None, "b": None} | record for record in more]


@pytest.mark.parametrize(
    "records, name, reason",
    [
        (RECORDS, "out.tsv", "record 1 of in.jsonl has a tab or a line end in a field; give --out a name in .csv"),
        ([{"a": 1}, {"b": 1}], "out.csv", "record 2 of in.jsonl has a column 'b' that the first has not"),
        ([{"a": 1}, {"a": "x"}], "out.parquet", "out.parquet cannot have what is read: a column of Parquet has values"),
        ([{"a": 2**70}], "out.parquet", "give --out a name in .jsonl"),
    ],
)
def test_what_cannot_be_written_is_said(records: list[dict[str, Any]], name: str, reason: str) -> None:
    with pytest.raises(BertjaxError) as error:
        written(records, name)
    assert reason in str(error.value) and "\n" not in str(error.value)
