"""Lines of a text file as the inputs of an encoder: a line a text, and with a tab in it a pair of texts."""

import contextlib
import hashlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bertjax.data.sources.lines import BadError, kind_of, opened, unreadable
from bertjax.errors import BertjaxError
from bertjax.inference.inputs import Text

LONGEST_LINE = 1 << 26  # bytes, as of a record of a corpus: a file of another kind may have no end of line at all


class Place(NamedTuple):
    """A place between two lines, or other rows, of what is read, and what lies before it."""

    lines: int = 0
    digest: str = hashlib.sha256().hexdigest()  # of their bytes


def source_name(source: str) -> str:
    """Returns what a message calls the source."""
    return "standard input" if source == "-" else source


@contextlib.contextmanager
def open_lines(source: str, option: str = "--input") -> Iterator[tuple[Iterator[bytes], int | None]]:
    """Opens a file, which may be .gz or .zst, or standard input for "-".

    Args:
      option: what errors call the source by.

    Yields:
      its lines, and its size in bytes, None where that is not known.

    Raises:
      BertjaxError: it cannot be read; while lines are taken, too.
    """
    if source == "-":
        yield _lines(sys.stdin.buffer, source, option), None
        return
    packed = kind_of(Path(source)).compression is not None
    try:
        file = opened(Path(source)) if packed else open(source, "rb")
    except (BadError, OSError, ValueError) as error:
        raise _unreadable(source, option, error) from None
    with file:
        yield _lines(file, source, option), None if packed else os.fstat(file.fileno()).st_size or None


def _lines(file: BinaryIO, source: str, option: str) -> Iterator[bytes]:
    try:
        for number in itertools.count(1):
            line = file.readline(LONGEST_LINE + 1)
            if len(line) > LONGEST_LINE:
                where = f"line {number} of {source_name(source)}"
                raise BertjaxError(f"{where} has more than {LONGEST_LINE:,} bytes; cut it into texts, one a line")
            if not line:
                return
            yield line
    except unreadable(Path(source)) as error:
        raise _unreadable(source, option, error) from None


def _unreadable(source: str, option: str, error: Exception) -> BertjaxError:
    reason = (
        str(error)
        if isinstance(error, BadError)
        else f"{source} cannot be read: {getattr(error, 'strerror', None) or error}"
    )
    return BertjaxError(f"{option} {reason}; give a file of text, or - for standard input")


def item_of_line(line: bytes, number: int, source: str) -> Text:
    """Returns the text of a line, or its pair. Raises BertjaxError where it is not UTF-8, or has several tabs."""
    where = f"line {number} of {source_name(source)}"
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise BertjaxError(f"{where} is not UTF-8 text (byte {error.start + 1}); convert the texts first") from None
    first, *rest = text.removesuffix("\n").removesuffix("\r").split("\t")
    if len(rest) > 1:
        raise BertjaxError(f"{where} has {len(rest)} tabs; one makes a pair of texts, so give one at most")
    return (first, rest[0]) if rest else first
