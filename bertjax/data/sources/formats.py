"""Files of every kind, each also compressed: a part of one becomes documents of blocks of lines."""

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bertjax.data.sources.columnar import pyarrow_for
from bertjax.data.sources.lines import BadError, Kind, Part, kind_of, lines
from bertjax.data.sources.records import is_json_lines, texts

_PIECE = 1 << 20  # bytes of a line: a longer one comes in several pieces


class Layout(NamedTuple):
    """The way in which files are read."""

    document: Literal["file", "line", "block"] = "block"  # of plain text
    sentence: Literal["split", "line"] = "split"
    language: str = "en"
    field: str = "text"  # of files of records, which are their documents
    on_bad: Literal["stop", "skip"] = "stop"


LAYOUT = Layout()


# Of a document: the lines between two blank ones, stripped, each with its line feed. A very long line comes in pieces;
# the last of them has it. A block is to be read before the next.
Blocks = Iterator[Iterator[str]]


def parts_of(file: Path, layout: Layout, size: int) -> list[Part]:
    """Cuts a file between documents into parts; one that cannot or need not be cut is one part.

    Args:
      size: bytes that a part has, about.
    """
    name, cuts, kind = os.fspath(file), [0], kind_of(file)
    try:
        there = os.stat(file).st_size
        if there > 1.5 * size:
            cuts += _cuts(file, kind, layout, range(size, there, size))
    except (OSError, BadError):  # its reader will say so
        return [Part(name)]
    cuts = sorted(set(cuts))
    in_bytes = kind.format not in ("parquet", "arrow") and not kind.compression
    ends = [*cuts[1:], (there or None) if in_bytes else None]
    return [Part(name, start, end, there // len(cuts)) for start, end in zip(cuts, ends, strict=True)]


def _cuts(file: Path, kind: Kind, layout: Layout, near: range) -> list[int]:
    """Returns where documents begin: the first ones after these bytes; of Parquet files as many row groups."""
    if kind.compression or kind.format in ("csv", "tsv", "arrow"):
        return []
    if (kind.format == "text" and layout.document == "file") or (kind.format == "json" and not is_json_lines(file)):
        return []
    with open(file, "rb") as opened:
        if kind.format == "parquet":
            with pyarrow_for(file) as arrow:
                groups = arrow.parquet.ParquetFile(opened).num_row_groups
            return [groups * number // (len(near) + 1) for number in range(1, len(near) + 1)]
        blank = kind.format == "text" and layout.document == "block"
        cuts = [0]
        for at in near:
            if at >= cuts[-1]:  # else the next one after it is the last that was found
                cuts.append(_cut_after(opened, at, blank=blank))
        return [cut for cut in cuts if 0 < cut < near.stop]


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
    if kind_of(Path(part.file)).format == "text":
        yield from _plain((piece for _, piece in lines(part, _PIECE)), layout.document)
        return
    for text in texts(part, layout.field):
        if isinstance(text, BadError):
            yield text
        else:
            yield _blocks(f"{line.strip()}\n" for line in text.splitlines())


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
