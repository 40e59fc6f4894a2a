"""Files of records that are written one by one: tables, JSON lines, Parquet, by the ending of the name."""

import contextlib
import csv
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from bertjax.data.sources.records import Place
from bertjax.errors import BertjaxError

TABLES, RECORDS = (".csv", ".tsv"), (".jsonl", ".parquet")  # of texts alone, and of whatever JSON has
BINARY = (".parquet",)
_ROWS_AT_ONCE = 4096

Write = Callable[[Place, dict[str, Any]], None]
"""Writes a record, which was read at a place; a BertjaxError says why it cannot."""


def check_format(out: Path, formats: tuple[str, ...]) -> None:
    """Raises BertjaxError where a name does not end in one of these, or what writes such a file is not installed."""
    if out.suffix not in formats:
        raise BertjaxError(f"--out {out} does not end in {', '.join(formats)}; give a name that does")
    if out.suffix in BINARY and importlib.util.find_spec("pyarrow") is None:
        raise BertjaxError(f"to write {out} pyarrow is needed: pip install 'bertjax[parquet]'")


@contextlib.contextmanager
def record_writer(file: IO[Any], out: Path) -> Iterator[Write]:
    """Lends what writes records to an open file, whose name tells the format; at the end the file is whole.

    A table has the columns of the first record; a Parquet file has those of all, and is held in memory until then.
    """
    if out.suffix == ".parquet":
        with _parquet_writer(file, out) as write:
            yield write
    elif out.suffix == ".jsonl":
        yield lambda _, record: print(_json(record), file=file)
    else:
        yield _table_writer(file, tabs=out.suffix == ".tsv")


def _table_writer(file: IO[str], *, tabs: bool) -> Write:
    columns: list[str] = []
    how: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None} if tabs else {}
    table = csv.writer(file, lineterminator="\n", **how)

    def write(place: Place, record: dict[str, Any]) -> None:
        if not columns:
            columns.extend(record)
            table.writerow(columns)
        if more := [column for column in record if column not in columns]:
            raise BertjaxError(f"{place} has a column {more[0]!r} that the first has not; give --out a name in .jsonl")
        try:
            table.writerow([_cell(record.get(column)) for column in columns])
        except csv.Error:
            raise BertjaxError(f"{place} has a tab or a line end in a field; give --out a name in .csv") from None

    return write


@contextlib.contextmanager
def _parquet_writer(file: IO[bytes], out: Path) -> Iterator[Write]:
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, None] = {}  # in the order in which they come
    tables, records = [], list[dict[str, Any]]()

    def flush() -> None:
        if records:
            columns_of = {column: [record.get(column) for record in records] for column in columns}
            tables.append(pyarrow.table(columns_of))
            records.clear()

    def write(place: Place, record: dict[str, Any]) -> None:
        columns.update(dict.fromkeys(record))
        records.append(record)
        if len(records) == _ROWS_AT_ONCE:
            flush()

    try:
        yield write
        flush()
        whole = pyarrow.concat_tables(tables, promote_options="permissive") if tables else pyarrow.table({})
        pyarrow.parquet.write_table(whole, file)
    except (pyarrow.ArrowException, OverflowError) as error:
        why = " ".join(str(error).split())
        raise BertjaxError(
            f"{out} cannot have what is read: a column of Parquet has values of one kind ({why}); give --out a name in "
            ".jsonl"
        ) from None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else _json(value)
