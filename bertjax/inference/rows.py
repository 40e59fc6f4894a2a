"""Rows of files as the inputs of an encoder: each a text or a pair of texts, and what is kept of it beside its vector.

A line of plain text is a row, and so is a record of any other file.
"""

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bertjax.data.examples import records_of_file
from bertjax.data.sources.files import find_files
from bertjax.data.sources.lines import BadError, kind_of
from bertjax.data.sources.records import as_text, in_field
from bertjax.errors import BertjaxError
from bertjax.inference.inputs import Text
from bertjax.inference.text_lines import Place, item_of_line, open_lines, source_name
from bertjax.storage.paths import user_path

TEXT = "text"
_COLUMN, _KEEP = "--column", "--keep"
_WRITTEN = ("vector", "vectors")  # columns that are written, and so not kept


class Reading(NamedTuple):
    """What is taken of files."""

    columns: tuple[str, ...] = ()  # of records, with the text or with both of a pair; by default "text"
    keep: tuple[str, ...] | None = ()  # what is kept of each row beside its vector; None for all
    part: int = 1  # of so many `parts` of the rows: it has every `parts`-th
    parts: int = 1
    text_of_lines: bool = False  # whether all of a line of plain text is more than its number


class Row(NamedTuple):
    """A row of a file."""

    text: Text
    place: Any  # what errors call it, by `str`
    content: bytes  # that the vector is made of
    record: bytes  # a line of JSON, with what is kept; empty where nothing is


class Window(NamedTuple):
    """Rows that are encoded together."""

    first: int  # the first one's number among all that are encoded
    rows: list[Row]
    end: Place  # after the last of them
    num_bytes: int


def parse_part(text: str) -> tuple[int, int]:
    """Returns the numbers of "i/n". Raises BertjaxError where it is no part."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    part, parts = map(int, match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise BertjaxError(f"--split {text} is no part of the rows; give i/n, as 1/4, 2/4, 3/4 and 4/4")
    return part, parts


def find_sources(source: str) -> list[str]:
    """Returns the files of --input: one, also a pipe; "-" for standard input; or several, as `find_files` takes them.

    It opens nothing: a pipe can be opened only once. Raises BertjaxError where there are none.
    """
    path = source if source == "-" else os.fspath(user_path(source))
    if path == "-" or (os.path.exists(path) and not os.path.isdir(path)):
        return [path]
    if not os.path.isdir(path) and not re.search(f"[*?[{os.pathsep}]", path):
        raise BertjaxError(f"--input {path} is not there; give a file of text, or - for standard input")
    return [os.fspath(file) for file in find_files(source, "--input")]


def bytes_of(files: Sequence[str]) -> int | None:
    """Returns how many bytes the rows of files have; None where that is not known before they are read."""
    plain = (os.path.isfile(file) and kind_of(Path(file)) == ("text", None) for file in files)
    return sum(map(os.path.getsize, files)) or None if all(plain) else None


def read_rows(files: Sequence[str], reading: Reading) -> Iterator[Row]:
    """Yields the rows of files, one file after the other; of a part every so many.

    Raises:
      BertjaxError: a file cannot be read, or a row of it has no text, a column that is to be kept lacks, or one has the
        name of what is written.
    """
    rows = itertools.chain.from_iterable(_rows(file, reading, several=len(files) > 1) for file in files)
    return itertools.islice(rows, reading.part - 1, None, reading.parts)


def windows(rows: Iterable[Row], *, after: int, digest: Any, tokens: int) -> Iterator[Window]:
    """Yields some thousands of rows at a time, cut by nothing but what is in them.

    Args:
      rows: without those before `after`.
      after: how many rows lie before the first.
      digest: a `hashlib` digest that has taken in those rows.
      tokens: roughly so many make a window.
    """
    some: list[Row] = []
    done, num_bytes = after, 0

    def window() -> Window:
        return Window(done - after - len(some), some, Place(done, digest.hexdigest()), num_bytes)

    for row in rows:
        digest.update(row.content + row.record)
        some.append(row)
        done, num_bytes = done + 1, num_bytes + len(row.content)
        if len(some) >= tokens // 8 or num_bytes >= tokens * 4:
            yield window()
            some, num_bytes = [], 0
    if some:
        yield window()


def _rows(file: str, reading: Reading, *, several: bool) -> Iterator[Row]:
    if file == "-" or kind_of(Path(file)).format == "text":
        if reading.columns:
            raise BertjaxError(f"--input {source_name(file)} is plain text and has no columns; leave out {_COLUMN}")
        return _line_rows(file, reading, several)
    return _record_rows(file, reading.columns or (TEXT,), reading.keep)


def _line_rows(file: str, reading: Reading, several: bool) -> Iterator[Row]:
    with open_lines(file) as (lines, _):
        for number, line in enumerate(lines, 1):
            place, text, record = f"line {number} of {source_name(file)}", item_of_line(line, number, file), b""
            if reading.keep != ():
                there: dict[str, Any] = {"file": source_name(file)} if several else {}
                there["line"] = number
                if reading.text_of_lines or reading.keep is not None:
                    there |= zip((TEXT, "pair"), (text,) if isinstance(text, str) else text, strict=False)
                record = _record(there, reading.keep, place)
            yield Row(text, place, line, record)


def _record_rows(file: str, columns: tuple[str, ...], keep: tuple[str, ...] | None) -> Iterator[Row]:
    only = None if keep is None else dict.fromkeys(keep, _KEEP) | dict.fromkeys(columns, _COLUMN)
    for place, record in records_of_file(Path(file), dict.fromkeys(columns, _COLUMN), only=only):
        texts = [as_text(in_field(record, column), column, _COLUMN) for column in columns]
        for text in texts:
            if isinstance(text, BadError):
                raise BertjaxError(f"{place} {text}; mend the row, or name another column")
        first, *second = map(str, texts)
        content = "\0".join([first, *second]).encode() + b"\n"
        kept = b"" if keep == () else _record(record, keep, place)
        yield Row((first, *second) if second else first, place, content, kept)  # type: ignore[arg-type]


def _record(there: dict[str, Any], keep: tuple[str, ...] | None, place: Any) -> bytes:
    """Returns the line of JSON with what is kept of a row."""
    if keep is not None:
        for column in keep:
            if column not in there and in_field(there, column) is None:
                known = ", ".join(there)
                raise BertjaxError(f"{place} has no column {column!r} ({_KEEP}), but {known}; name another")
        there = {column: in_field(there, column) for column in keep}
    for column in _WRITTEN:
        if column in there:
            raise BertjaxError(f"{place} has a column {column}, as vectors have; choose others with {_KEEP}")
    return json.dumps(there, ensure_ascii=False, default=_plain).encode("utf-8", "replace") + b"\n"


def _plain(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
