"""Lines of a text file as the inputs of an encoder: a line a text, and with a tab in it a pair of texts."""

import contextlib
import hashlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bertjax.data.sources.lines import BadError, kind_of, opened, unreadable
from bertjax.errors import BertjaxError
from bertjax.inference.inputs import Text

LONGEST_LINE = 1 << 26  # bytes, as of a record of a corpus: a file of another kind may have no end of line at all


class Place(NamedTuple):
    """A place between two lines of a file, and what lies before it."""

    lines: int = 0
    digest: str = hashlib.sha256().hexdigest()  # of their bytes


class Window(NamedTuple):
    """Lines that are encoded together."""

    items: list[Text]
    end: Place  # after the last of them
    num_bytes: int


def check_source(source: str) -> None:
    """Raises BertjaxError where there are no texts. It opens nothing: a pipe can be opened only once."""
    if source != "-" and not os.path.exists(source):
        raise BertjaxError(f"--input {source} is not there; give a file of text, or - for standard input")


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


def windows(lines: Iterable[bytes], source: str, *, after: int, digest: Any, tokens: int) -> Iterator[Window]:
    """Yields some thousands of lines at a time, cut by nothing but what is in them.

    Args:
      lines: the source's, without those before `after`.
      source: their name in errors.
      after: how many lines lie before the first.
      digest: a `hashlib` digest that has taken in those lines.
      tokens: roughly so many make a window.

    Raises:
      BertjaxError: a line is not UTF-8, or has several tabs.
    """
    items: list[Text] = []
    num_bytes = 0
    number = after
    for number, line in enumerate(lines, after + 1):
        digest.update(line)
        items.append(_item(line, number, source))
        num_bytes += len(line)
        if len(items) >= tokens // 8 or num_bytes >= tokens * 4:
            yield Window(items, Place(number, digest.hexdigest()), num_bytes)
            items, num_bytes = [], 0
    if items:
        yield Window(items, Place(number, digest.hexdigest()), num_bytes)


def _item(line: bytes, number: int, source: str) -> Text:
    where = f"line {number} of {source_name(source)}"
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise BertjaxError(f"{where} is not UTF-8 text (byte {error.start + 1}); convert the texts first") from None
    first, *rest = text.removesuffix("\n").removesuffix("\r").split("\t")
    if len(rest) > 1:
        raise BertjaxError(f"{where} has {len(rest)} tabs; one makes a pair of texts, so give one at most")
    return (first, rest[0]) if rest else first
