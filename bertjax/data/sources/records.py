"""Records of a file, each with texts in its fields: JSON, tables of comma- or tab-separated values, Parquet, Arrow."""

import csv
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bertjax.data.sources.columnar import arrow_rows, no_column, parquet_rows
from bertjax.data.sources.lines import BadError, Part, in_a_line, kind_of, lines, lines_before, opened, unreadable

_PIECE = 1 << 20  # bytes of a line of JSON that is not one record a line
_LONGEST = 1 << 26  # bytes of a record: a file of another kind may have no end of line at all
_SPACE = re.compile(r"\s*")


class Place(NamedTuple):
    """The place of a record, as complaints name it: "line 3 of train.csv"."""

    part: Part
    what: str
    number: int

    def __str__(self) -> str:
        before = lines_before(self.part) if self.what == "line" else 0
        return f"{self.what} {self.number + before:,} of {self.part.file}"


def texts(part: Part, field: str, key: str = "data.text_field") -> Iterator[str | BadError]:
    """Yields the text of each record, or why it has none.

    Args:
      field: the name of its text; "a.b" is also the field b in the field a.
      key: of the configuration, that names the field.

    Raises:
      BadError: the rest cannot be read.
    """
    for place, record in records(part, {field: key}):
        value = record if isinstance(record, BadError) else as_text(in_field(record, field), field, key)
        yield BadError(f"{place} {value}", value.reason) if isinstance(value, BadError) else value


def records(
    part: Part, fields: Mapping[str, str] | None = None, columns: Sequence[str] = ()
) -> Iterator[tuple[Place, Any]]:
    """Yields the place of each record and what is there: a dict where all is well, or a BadError that says why not.

    Args:
      fields: those that are needed, each with the key of the configuration that names it; a file whose columns are
        known must have them, and others need not come. By default all.
      columns: names of a table's columns where its first row has none of them, and so is a record.

    Raises:
      BadError: the rest cannot be read.
    """
    file = Path(part.file)
    readers = {"jsonl": _json_lines, "json": _json_lines, "parquet": parquet_rows, "arrow": arrow_rows}
    table: Callable[[Part, Mapping[str, str] | None], Iterator[tuple[int, Any]]]
    table = functools.partial(_table, columns=columns)
    kind, what = kind_of(file).format, "line"
    reader = readers.get(kind, table)
    if kind in ("parquet", "arrow"):
        what = "row"
    elif kind == "json" and not part.start and not is_json_lines(file):
        what, reader = "record", _json_values
    for number, record in reader(part, fields):
        yield Place(part, what, number), record


def is_json_lines(file: Path) -> bool:
    """Tells whether JSON is one record a line: not one array, nor records that are spread over lines.

    Raises:
      BadError: it cannot be read.
    """
    try:
        with opened(file) as start:
            text = start.read(1 << 12).decode("utf-8-sig", "replace").lstrip()
    except unreadable(file) as error:
        raise BadError(f"{file} cannot be read ({in_a_line(error)})", "unreadable") from None
    first, line_feed, _ = text.partition("\n")
    return not (text.startswith("[") or (line_feed and first.strip() == "{"))


def as_text(value: Any, field: str, key: str) -> str | BadError:
    """Returns what is in a field as text, or why it is none."""
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeDecodeError:
        return BadError("is not UTF-8 text", "not UTF-8")
    except UnicodeEncodeError:
        return BadError("holds half a character, a lone surrogate", "half a character")
    return BadError(f"has no text as {field!r} ({key})", f"no text as {field!r}")


def in_field(record: Any, field: str) -> Any:
    """Returns what a record has in a field, "a.b" being also the field b in the field a; None where it has not."""
    if not isinstance(record, dict):
        return None
    if field in record:
        return record[field]
    outer, _, inner = field.partition(".")
    return in_field(record.get(outer), inner) if inner else None


def _whole_lines(part: Part, *, strip: bool) -> Iterator[tuple[int, str]]:
    for number, line in lines(part, _LONGEST, strip=strip):
        if not line.endswith("\n"):
            why = f"has no records: more than {_LONGEST:,} bytes are in line {lines_before(part) + number:,}"
            raise BadError(f"{part.file} {why}", "too long a line")
        yield number, line


def _json_lines(part: Part, fields: Mapping[str, str] | None) -> Iterator[tuple[int, Any]]:
    """Yields each line's record, with the number of the line in the part."""
    for number, line in _whole_lines(part, strip=True):
        if line != "\n":
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, BadError(f"is no JSON ({error})", "no JSON")


def _json_values(part: Part, fields: Mapping[str, str] | None) -> Iterator[tuple[int, Any]]:
    """Yields each record with its number: an array's elements, or one after another."""
    decode = json.JSONDecoder().raw_decode
    text, enough, inside, number = "", 0, False, 0
    for piece in itertools.chain((piece for _, piece in lines(part, _PIECE)), [None]):
        text, at_end = text + (piece or ""), piece is None
        if len(text) < enough and not at_end:  # a long record is not tried at every line of it
            continue
        at = 0
        while (at := _SPACE.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            if text[at] in ",]" or (text[at] == "[" and not inside):
                inside = text[at] == "[" or (inside and text[at] == ",")
                at += 1
                continue
            try:
                value, end = decode(text, at)
            except (ValueError, RecursionError) as error:
                if at_end or len(text) - at > _LONGEST:
                    reason = f"is no JSON from its record {number + 1:,} on ({error})"
                    raise BadError(f"{part.file} {reason}", "no JSON") from None
                break
            if end == len(text) and not at_end:  # a number may go on
                break
            number, at = number + 1, end
            yield number, value
        text = text[at:]
        enough = 2 * len(text)
    if inside:
        raise BadError(f"{part.file} is no JSON: its array has no end after {number:,} records", "no JSON")


def _table(part: Part, fields: Mapping[str, str] | None, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Yields each row by column, with the number of its first line; the first row names them, or `columns` do.

    What a row has beyond them is a list under None, as `csv.DictReader` has it; what it lacks is left out.

    Of comma-separated values a field in quotation marks may hold commas, line ends, and "" for a mark; in tab-separated
    ones marks are but marks, as in IANA's text/tab-separated-values: else an odd one would swallow the rows after it.
    """
    file = Path(part.file)
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
    numbered = (line for _, line in _whole_lines(part, strip=False))
    if kind_of(file).format == "csv":
        rows = csv.reader(numbered, strict=True)
    else:
        rows = csv.reader(numbered, delimiter="\t", quoting=csv.QUOTE_NONE)
    names: list[str] = []
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            why = f"is no row of a table, nor what follows to line {rows.line_num:,} ({error})"
            yield number, BadError(why, "no CSV")
            continue
        if row and not names:
            first = [name.strip() for name in row]
            is_record = bool(columns) and not {*first} & {*columns}
            names = list(columns) if is_record else first
            for field, key in (fields or {}).items():
                if field not in names:
                    raise no_column(file, field, key, names)
            if not is_record:
                continue
        if row:
            record: dict[str | None, Any] = dict(zip(names, row, strict=False))
            yield number, record if len(row) <= len(names) else record | {None: row[len(names) :]}
