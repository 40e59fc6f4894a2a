"""A file's bytes as lines of text: its kind by its name, its compression and encoding, and what is no text."""

import codecs
import functools
import gzip
import io
import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bertjax.errors import BertjaxError

Format = Literal["text", "jsonl", "json", "csv", "tsv", "parquet", "arrow"]
_FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json"}
_FORMATS |= {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".arrow": "arrow"}
COMPRESSED = (".gz", ".zst")
# What tools that keep large files elsewhere put in their place.
_POINTERS = {b"version https://git-lfs.github.com/spec/": "git lfs pull", b"/annex/objects/": "git annex get"}
_NOT_UTF_8 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32's other begins like UTF-16's


class Kind(NamedTuple):
    """The kind of a file, as its name tells it."""

    format: Format
    compression: str | None  # one of COMPRESSED


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


def kind_of(file: Path) -> Kind:
    """Returns a file's kind; what is of no other is plain text. Capitals are as good as small letters."""
    *_, inner, outer = ("", "", *(suffix.lower() for suffix in file.suffixes))
    if outer in COMPRESSED:
        return Kind(_FORMATS.get(inner, "text"), outer)
    return Kind(_FORMATS.get(outer, "text"), None)


def opened(file: Path) -> Any:
    """Opens a file's bytes, through its compression.

    Raises:
      BadError: it cannot be opened, or its text is not in it.
    """
    try:
        with open(file, "rb") as raw:
            start = raw.read(max(map(len, _POINTERS)))
        for pointer, remedy in _POINTERS.items():
            if start.startswith(pointer):
                raise BadError(f"{file} holds a pointer in place of its text (fetch that by {remedy})", "a pointer")
        compression = kind_of(file).compression
        if compression == ".gz":
            return gzip.open(file)
        if compression == ".zst":
            zstd = _zstd(file)
            # The format's greatest, as --long=31 writes it: such a file takes as much memory, and is read nonetheless.
            _, window = zstd.DecompressionParameter.window_log_max.bounds()
            return zstd.open(file, options={zstd.DecompressionParameter.window_log_max: window})
        return open(file, "rb")
    except OSError as error:
        raise BadError(f"{file} cannot be read: {error.strerror or error}", "unreadable") from None


def unreadable(file: Path) -> tuple[type[Exception], ...]:
    """Returns what the libraries raise at a damaged file."""
    known = (OSError, EOFError, ValueError, zlib.error)
    return (*known, _zstd(file).ZstdError) if kind_of(file).compression == ".zst" else known


def in_a_line(error: Exception) -> str:
    """Returns what a library says."""
    return " ".join(str(error).split())


def lines(part: Part, longest: int, *, strip: bool = True) -> Iterator[tuple[int, str]]:
    """Yields lines, each with its line feed, and with its number in the part, from 1 on.

    They may end as on any system. One of more bytes than `longest` comes in pieces, of which the last has the line feed
    and is not blank.

    Args:
      strip: leave out the white space around each.

    Raises:
      BadError: the rest cannot be read.
    """
    number, left = 1, math.inf if part.end is None else part.end - part.start
    decoder = codecs.getincrementaldecoder("utf-8" if part.start else "utf-8-sig")()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=True)

    def bad(why: str, reason: str) -> BadError:
        whole = part.end is None or part.size == part.end
        rest = "" if whole else f", and is left out from there to its byte {part.end:,}"
        return BadError(f"{part.file} {why} {lines_before(part) + number:,}{rest}", reason)

    file = Path(part.file)
    text, inside = "", False  # of the line that is being read: what is not yielded, and whether a piece of it was
    try:
        with opened(file) as bytes_of_it:
            if part.start:  # some compressed files cannot even go where they are
                bytes_of_it.seek(part.start)
            read = b"\n"
            while read:
                read = bytes_of_it.readline(longest) if left > 0 else b""
                left -= len(read)
                if number == 1 and not part.start and not inside and read.startswith(_NOT_UTF_8):
                    raise BadError(f"{file} is UTF-16 or UTF-32 (convert it, as iconv -t UTF-8 does)", "not UTF-8")
                if b"\0" in read:
                    raise bad("is no text: there is a NUL in line", "a NUL")
                *ended, text = (text + newlines.decode(read, final=not read)).split("\n")
                for line in ended if read else [*ended, text]:
                    line = line if not strip else line.rstrip() if inside else line.strip()
                    yield number, f"{line}\n"
                    inside = False
                if len(read) == longest and (end := len(text.rstrip()) - 1) > 0:
                    yield number, text[:end] if inside or not strip else text[:end].lstrip()
                    text, inside = text[end:], True
                number += read.endswith(b"\n")
            if 0 < left < math.inf:
                raise bad(f"is {left:,} bytes shorter than when it was found: it ends in line", "shorter than it was")
    except UnicodeDecodeError:
        raise bad("is not UTF-8 text in line", "not UTF-8") from None
    except unreadable(file) as error:
        raise bad(f"cannot be read ({in_a_line(error)}) from line", "unreadable") from None


@functools.lru_cache(maxsize=1)  # of a part there may be a million complaints
def lines_before(part: Part) -> int:
    """Counts the lines of the file before the part: only to complain of one."""
    lines, left = 0, part.start
    with open(part.file, "rb") as opened:
        while left > 0 and (piece := opened.read(min(left, 1 << 20))):
            lines, left = lines + piece.count(b"\n"), left - len(piece)
    return lines


def _zstd(file: Path) -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise BertjaxError(f"to read {file} backports.zstd is needed: pip install 'bertjax[parquet]'") from None
    return zstd
