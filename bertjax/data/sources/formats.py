"""Plain text, JSON lines and Parquet, each also compressed: a part of a file becomes documents of blocks of lines."""

import codecs
import contextlib
import gzip
import io
import itertools
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bertjax.errors import BertjaxError

_PIECE = 1 << 20  # bytes of a line: a longer one comes in several pieces
_LONGEST_RECORD = 1 << 26  # bytes of a line of JSON: a file of another kind may have no end of line at all
_JSON, _PARQUET = (".jsonl", ".ndjson", ".json"), ".parquet"
_COMPRESSED = (".gz", ".zst")
_ROWS_AT_ONCE = 256


class Layout(NamedTuple):
    """The way in which files are read."""

    document: Literal["file", "line", "block"] = "block"  # of plain text
    sentence: Literal["split", "line"] = "split"
    language: str = "en"
    field: str = "text"  # of JSON lines and Parquet, whose documents are their records
    on_bad: Literal["stop", "skip"] = "stop"


LAYOUT = Layout()


class Part(NamedTuple):
    """Whole documents of a file: from one byte up to another, of a Parquet file from one row group up to another."""

    file: str
    start: int = 0
    end: int | None = None  # the file's
    size: int = 0  # bytes on disk, roughly


class BadError(Exception):
    """Says why a file cannot be read, or not further, or why a record cannot.

    Args:
      message: which one, and why.
      reason: the kind of fault alone, by which such are counted.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


# Of a document: the lines between two blank ones, stripped, each with its line feed; a very long line comes in pieces,
# of which the last has it. A block is to be read before the next.
Blocks = Iterator[Iterator[str]]


def parts_of(file: Path, layout: Layout, size: int) -> list[Part]:
    """Cuts a file between documents into parts; one that cannot or need not be cut is one part.

    Args:
      size: bytes that a part has, about.
    """
    name, cuts = os.fspath(file), [0]
    try:
        there = os.stat(file).st_size
        if there > 1.5 * size:
            cuts += _cuts(file, layout, range(size, there, size))
    except (OSError, BadError):  # its reader will say so
        return [Part(name)]
    cuts = sorted(set(cuts))
    return [Part(name, *ends, there // len(cuts)) for ends in itertools.zip_longest(cuts, cuts[1:])]


def _cuts(file: Path, layout: Layout, near: range) -> list[int]:
    """Returns where documents begin: the first ones after these bytes; of Parquet files as many row groups."""
    kind = _kind(file)
    if file.suffix in _COMPRESSED or (kind not in (*_JSON, _PARQUET) and layout.document == "file"):
        return []
    with open(file, "rb") as opened:
        if kind == _PARQUET:
            with _parquet_reader(file) as parquet:
                groups = parquet.ParquetFile(opened).num_row_groups
            return [groups * number // (len(near) + 1) for number in range(1, len(near) + 1)]
        blank = kind not in _JSON and layout.document == "block"
        cuts = [0]
        for at in near:
            if at >= cuts[-1]:  # else the next one after it is the last that was found
                cuts.append(_cut_after(opened, at, blank=blank))
        return [cut for cut in cuts if 0 < cut < near.stop]


def _kind(file: Path) -> str:
    return file.with_suffix("").suffix if file.suffix in _COMPRESSED else file.suffix


def _cut_after(opened: Any, at: int, *, blank: bool) -> int:
    """Returns where the first line begins that starts after a byte, or the first that a blank one comes before."""
    opened.seek(at)
    piece, inside, found = b"x", True, False  # what stands at that byte may be the rest of a line
    while piece and not found:
        piece = opened.readline(_PIECE)
        ends = piece.endswith(b"\n")
        found = ends and (not blank or not (inside or piece.strip()))
        inside = not ends
    return opened.tell()


def read(part: Part, layout: Layout) -> Iterator[Blocks | BadError]:
    """Yields the part's documents, each to be read before the next; a record that is none comes as the reason.

    Raises:
      BadError: the rest cannot be read.
    """
    file = Path(part.file)
    kind = _kind(file)
    if kind == _PARQUET:
        yield from _records(_parquet(part, layout.field), lambda row: f"row {row:,} of {file}", layout.field)
    elif kind in _JSON:

        def where(line: int) -> str:
            return f"line {_lines_before(part) + line:,} of {file}"

        yield from _records(_json_lines(part, layout.field), where, layout.field)
    else:
        yield from _plain((piece for _, piece in _lines(part, _PIECE)), layout.document)


def _plain(pieces: Iterator[str], document: str) -> Iterator[Blocks]:
    if document == "line":
        yield from (iter([_line(piece, pieces)]) for piece in pieces if piece != "\n")
    elif document == "file":
        yield _blocks(pieces)
    else:
        yield from (iter([block]) for block in _blocks(pieces))


def _line(piece: str, others: Iterator[str]) -> Iterator[str]:
    """Yields a piece and the others of its line."""
    yield piece
    while not piece.endswith("\n"):
        yield (piece := next(others))


def _blocks(pieces: Iterable[str]) -> Blocks:
    yield from (block for blank, block in itertools.groupby(pieces, "\n".__eq__) if not blank)


def _records(
    records: Iterator[tuple[int, Any]], where: Callable[[int], str], field: str
) -> Iterator[Blocks | BadError]:
    for number, text in records:
        why, reason = f"has no text as {field!r} (data.text_field)", f"no text as {field!r}"
        if isinstance(text, BadError):
            why, reason = str(text), text.reason
        elif isinstance(text, str):
            try:
                text.encode()
            except UnicodeEncodeError:
                why, reason = "holds half a character, a lone surrogate", "half a character"
            else:
                yield _blocks(f"{line.strip()}\n" for line in text.splitlines())
                continue
        yield BadError(f"{where(number)} {why}", reason)


def _json_lines(part: Part, field: str) -> Iterator[tuple[int, Any]]:
    """Yields texts, each with the number of its line in the part."""
    for number, line in _lines(part, _LONGEST_RECORD):
        if not line.endswith("\n"):
            raise BadError(
                f"{part.file} is no JSON lines: more than {_LONGEST_RECORD:,} bytes are in line "
                f"{_lines_before(part) + number:,}",
                "too long a line",
            )
        if line != "\n":
            try:
                record = json.loads(line)
                yield number, record.get(field) if isinstance(record, dict) else None
            except (ValueError, RecursionError) as error:
                yield number, BadError(f"is no JSON ({error})", "no JSON")


def _parquet(part: Part, field: str) -> Iterator[tuple[int, Any]]:
    """Yields texts, each with the number of its row in the file."""
    file = Path(part.file)
    with _opened(file) as opened, _parquet_reader(file) as parquet:
        table = parquet.ParquetFile(opened if file.suffix == _PARQUET else io.BytesIO(opened.read()))
        if field not in table.schema_arrow.names:
            names = ", ".join(table.schema_arrow.names)
            raise BadError(f"{file} has no column {field!r} (data.text_field), but {names}", f"no column {field!r}")
        number = sum(table.metadata.row_group(group).num_rows for group in range(part.start))
        groups = range(part.start, table.num_row_groups if part.end is None else part.end)
        for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=list(groups), columns=[field]):
            for text in batch.column(0).to_pylist():
                number += 1
                yield number, text


@contextlib.contextmanager
def _parquet_reader(file: Path) -> Iterator[Any]:
    """Lends pyarrow.parquet, whose complaints become one that names the file."""
    pyarrow = _pyarrow(file)
    try:
        yield pyarrow.parquet
    except (*_UNREADABLE, pyarrow.ArrowException) as error:
        raise BadError(f"{file} is no Parquet file that can be read ({_in_a_line(error)})", "no Parquet") from None


def _lines(part: Part, longest: int) -> Iterator[tuple[int, str]]:
    """Yields lines, stripped, each with its line feed, and with its number in the part, from 1 on.

    They may end as on any system. One of more bytes than `longest` comes in pieces, of which the last has the line feed
    and is not blank.
    """
    number, left = 1, math.inf if part.end is None else part.end - part.start
    decoder = codecs.getincrementaldecoder("utf-8" if part.start else "utf-8-sig")()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=True)

    def bad(why: str, reason: str) -> BadError:
        rest = "" if part.end is None else f", and is left out from there to its byte {part.end:,}"
        return BadError(f"{part.file} {why} {_lines_before(part) + number:,}{rest}", reason)

    text, inside = "", False  # of the line that is being read: what is not yielded, and whether a piece of it was
    try:
        with _opened(Path(part.file)) as opened:
            if part.start:  # some compressed files cannot even go where they are
                opened.seek(part.start)
            read = b"\n"
            while read:
                read = opened.readline(longest) if left > 0 else b""
                left -= len(read)
                if b"\0" in read:
                    raise bad("is no text: there is a NUL in line", "a NUL")
                *ended, text = (text + newlines.decode(read, final=not read)).split("\n")
                for line in ended if read else [*ended, text]:
                    yield number, f"{line.rstrip() if inside else line.strip()}\n"
                    inside = False
                if len(read) == longest and (end := len(text.rstrip()) - 1) > 0:
                    yield number, text[:end] if inside else text[:end].lstrip()
                    text, inside = text[end:], True
                number += read.endswith(b"\n")
    except UnicodeDecodeError:
        raise bad("is not UTF-8 text in line", "not UTF-8") from None
    except _UNREADABLE as error:
        raise bad(f"cannot be read ({_in_a_line(error)}) from line", "unreadable") from None


def _lines_before(part: Part) -> int:
    """Counts the lines of the file before the part: only to complain of one."""
    lines, left = 0, part.start
    with open(part.file, "rb") as opened:
        while left > 0 and (piece := opened.read(min(left, 1 << 20))):
            lines, left = lines + piece.count(b"\n"), left - len(piece)
    return lines


# What damaged files make the libraries raise.
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error)


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _opened(file: Path) -> Any:
    try:
        if file.suffix == ".gz":
            return gzip.open(file)
        if file.suffix == ".zst":
            return io.BufferedReader(_pyarrow(file).input_stream(os.fspath(file), compression="zstd"))
        return open(file, "rb")
    except OSError as error:
        raise BadError(f"{file} cannot be read: {error.strerror or error}", "unreadable") from None


def _pyarrow(file: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BertjaxError(f"to read {file} pyarrow is needed: pip install 'bertjax[parquet]'") from None
    return pyarrow
