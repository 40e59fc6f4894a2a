"""Sentences of a file in columns, as the shared tasks of CoNLL have them: a word a line, its tag beside it.

Columns are set apart by tabs, or by spaces where there are none; a blank line ends a sentence. A line of "-DOCSTART-"
begins a document. Lines before a sentence that begin with "#" and have other columns than its words are comments.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bertjax.data.sources.lines import BadError, Part, lines

_LONGEST = 1 << 20  # bytes of a line
DOCUMENT = "-DOCSTART-"
_SPACE = " \t"


class Block(NamedTuple):
    """A sentence of a file, with what stands before it; the last one of a file may have no words."""

    number: int  # of the line of its first word
    before: list[str]  # lines: blank ones, comments, beginnings of documents
    lines: list[str]  # with its words, as they stand in the file
    rows: list[list[str]]  # their columns
    tabs: bool  # whether tabs set them apart
    document: int  # so many had begun before

    def beside(self, fields: list[str]) -> Iterator[str]:
        """Yields its lines, each word's with one field more."""
        yield from self.before
        between = "\t" if self.tabs else " "
        yield from (f"{line}{between}{field}" for line, field in zip(self.lines, fields, strict=True))


def blocks(file: Path) -> Iterator[Block]:
    """Yields the sentences of a file, in which every word has as many columns as the first one.

    Raises:
      BadError: it cannot be read, or a line has other columns.
    """
    before: list[str] = []
    rows: list[str] = []
    first, document = 0, 0
    shape: tuple[bool, int] | None = None  # whether tabs are between columns, and their number

    def block() -> Block:
        nonlocal shape
        if shape is None and (word := next((row for row in rows if not row.startswith("#")), None)):
            shape = "\t" in word, len(_columns(word, tabs="\t" in word))
        tabs, count = shape or (False, 0)
        columns = [_columns(row, tabs) for row in rows]
        comments = 0
        while comments < len(rows) and rows[comments].startswith("#") and len(columns[comments]) != count:
            comments += 1
        for number, row in enumerate(columns[comments:], first + comments):
            if len(row) != count:
                what = f"line {number:,} of {file} has {len(row)} columns, and the first word's has {count}"
                raise BadError(what, "other columns")
        return Block(first + comments, before + rows[:comments], rows[comments:], columns[comments:], tabs, document)

    for number, line in lines(Part(str(file)), _LONGEST, strip=False):
        if not line.endswith("\n"):
            raise BadError(f"line {number:,} of {file} has more than {_LONGEST:,} bytes", "too long a line")
        text = line.removesuffix("\n")
        begins = _columns(text, tabs=False)[:1] == [DOCUMENT]
        if text.strip(_SPACE) and not begins:
            first = first if rows else number
            rows.append(text)
            continue
        if rows:
            yield block()
            before, rows = [], []
        before.append(text)
        document += begins
    if before[-1:] == [""]:  # what stands behind the last line's end
        before.pop()
    if rows or before:
        yield block()


def _columns(line: str, tabs: bool) -> list[str]:
    # Words may hold other white space, such as one that lines are not broken at.
    return [column.strip(_SPACE) for column in line.split("\t")] if tabs else re.split("[ \t]+", line.strip(_SPACE))
