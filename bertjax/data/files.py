"""The user's own text: plain text, JSON lines and Parquet, each also compressed, streamed as documents."""

import glob
import gzip
import hashlib
import io
import itertools
import json
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bertjax.config import Split
from bertjax.errors import BertjaxError

MAX_SENTENCES = 4096  # of a document in one piece: longer ones come in parts, so that not all of one is in memory
_HELD_OUT = 0.01  # of the documents are "valid", and as many "test"
_JSON, _PARQUET = (".jsonl", ".ndjson", ".json"), ".parquet"
_COMPRESSED = (".gz", ".zst")
_ROWS_AT_ONCE = 256


class Layout(NamedTuple):
    """How files are read."""

    document: Literal["file", "line", "block"] = "block"  # of plain text
    sentence: Literal["split", "line"] = "split"
    language: str = "en"
    field: str = "text"  # of JSON lines and Parquet, whose documents are their records
    on_bad: Literal["stop", "skip"] = "stop"


LAYOUT = Layout()


class _BadError(Exception):
    """Why a file cannot be read, or not further."""


def find_files(path: str) -> list[Path]:
    """The files that data.path or data.eval_path names: files, folders and globs, apart by the system's `:`.

    Of a folder it is all files in it and below it but the hidden ones. Raises BertjaxError where one names nothing.
    """
    found: list[Path] = []
    for part in path.split(os.pathsep):
        name = os.path.expanduser(part)
        if os.path.isdir(name):
            inside = (Path(folder, file) for folder, _, files in os.walk(name) for file in files)
            files = [file for file in inside if not _is_hidden(file.relative_to(name))]
            remedy = "a folder with text in it"
        else:
            files = [Path(name)] if os.path.isfile(name) else [Path(match) for match in _matches(name)]
            remedy = "a file, a folder or a pattern such as 'texts/**/*.jsonl.gz'"
        if not files:
            raise BertjaxError(f"there is no file at {part!r}; give {remedy} as data.path or data.eval_path")
        found += sorted(files)
    return list(dict.fromkeys(found))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _matches(pattern: str) -> list[str]:
    return [match for match in glob.glob(pattern, recursive=True) if os.path.isfile(match)]


def fingerprint(files: Iterable[Path], layout: Layout) -> str:
    """Changes with the files' sizes, times of change and order, and with how they are read.

    Their content is not hashed: of a large corpus that alone would take minutes at every start.
    """
    seen = []
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise BertjaxError(f"cannot read {file}: {error.strerror}; make it readable, or leave it out") from None
        seen.append((file.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps([seen, layout]).encode()).hexdigest()


def documents(files: Iterable[Path], layout: Layout, split: Split | None = None) -> Iterator[list[list[str]]]:
    """Streams the documents that have a sentence, each as one paragraph, or several where it is very long.

    Args:
      split: one document in a hundred is "valid", another "test", the others "train"; which it is depends on its text
        alone. By default all are taken.

    Raises:
      BertjaxError: a file cannot be read, unless `layout.on_bad` has it skipped, with a warning; or no document is
        of the split.
    """
    from sentencex import segment

    def sentences(lines: list[str]) -> list[str]:
        if layout.sentence == "line":
            return lines
        return [sentence.strip() for sentence in segment(layout.language, " ".join(lines))]

    count = ours = 0
    for file in files:
        try:
            for blocks in _documents(file, layout):
                is_ours: bool | None = None
                for part in _in_parts(sentence for block in blocks for sentence in sentences(block)):
                    if is_ours is None:
                        is_ours = _is_of(split, part)
                        count, ours = count + 1, ours + is_ours
                    if is_ours:
                        yield [part]
        except _BadError as error:
            _complain(f"{file} {error}", layout)
    if count and not ours:
        raise BertjaxError(
            f"of the {count:,} documents in data.path, cut as data.document={layout.document} says, none falls to the "
            f"split {split}: valid and test get {_HELD_OUT:.0%} each; give held-out files as data.eval_path"
        )


def _in_parts(sentences: Iterator[str]) -> Iterator[list[str]]:
    there = filter(None, sentences)
    while part := list(itertools.islice(there, MAX_SENTENCES)):
        yield part


def _is_of(split: Split | None, sentences: list[str]) -> bool:
    if split is None:
        return True
    text = "\n".join(sentences).encode("utf-8", "surrogatepass")
    share = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64
    return split == ("valid" if share < _HELD_OUT else "test" if share < 2 * _HELD_OUT else "train")


Blocks = Iterator[list[str]]  # of a document: the lines, stripped, between two blank ones


def _documents(file: Path, layout: Layout) -> Iterator[Blocks]:
    """The file's, each to be read before the next."""
    kind = file.with_suffix("").suffix if file.suffix in _COMPRESSED else file.suffix
    if kind == _PARQUET:
        yield from _records(file, _parquet(file, layout.field), layout)
    elif kind in _JSON:
        yield from _records(file, _json_lines(file, layout.field), layout)
    else:
        yield from _plain(_lines(file), layout.document)


def _complain(what: str, layout: Layout) -> None:
    if layout.on_bad == "stop":
        raise BertjaxError(f"{what}; mend it, leave it out, or have such skipped by data.on_bad: skip") from None
    warnings.warn(f"skipped: {what}", stacklevel=2)


def _plain(lines: Iterator[str], document: str) -> Iterator[Blocks]:
    if document == "line":
        yield from (iter([[line]]) for line in lines if line)
    elif document == "file":
        yield _blocks(lines)
    else:
        yield from (iter([block]) for block in _blocks(lines))


def _blocks(lines: Iterable[str]) -> Blocks:
    block: list[str] = []
    for line in lines:
        if line:
            block.append(line)
        if block and (not line or len(block) == MAX_SENTENCES):
            yield block
            block = []
    if block:
        yield block


def _records(file: Path, records: Iterator[Any], layout: Layout) -> Iterator[Blocks]:
    for number, text in enumerate(records, 1):
        why = f"has no text as {layout.field!r} (data.text_field)"
        if isinstance(text, _BadError):
            why = str(text)
        elif isinstance(text, str):
            try:
                text.encode()
            except UnicodeEncodeError:
                why = "holds half a character, a lone surrogate"
            else:
                yield _blocks(line.strip() for line in text.splitlines())
                continue
        _complain(f"record {number} of {file} {why}", layout)


def _json_lines(file: Path, field: str) -> Iterator[Any]:
    for line in filter(None, _lines(file)):
        try:
            record = json.loads(line)
            yield record.get(field) if isinstance(record, dict) else None
        except (ValueError, RecursionError) as error:
            yield _BadError(f"is no JSON ({error})")


def _parquet(file: Path, field: str) -> Iterator[Any]:
    pyarrow = _pyarrow(file)
    try:
        with _opened(file) as opened:
            table = pyarrow.parquet.ParquetFile(opened if file.suffix == _PARQUET else io.BytesIO(opened.read()))
            if field not in table.schema_arrow.names:
                raise _BadError(f"has no column {field!r} (data.text_field), but {', '.join(table.schema_arrow.names)}")
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[field]):
                yield from batch.column(0).to_pylist()
    except (*_UNREADABLE, pyarrow.ArrowException) as error:
        raise _BadError(f"is no Parquet file that can be read ({_in_a_line(error)})") from None


def _lines(file: Path) -> Iterator[str]:
    """Stripped; they may end as on any system."""
    number = 0
    try:
        with _opened(file) as opened, io.TextIOWrapper(opened, "utf-8-sig") as text:
            for line in text:
                if "\0" in line:
                    raise _BadError(f"is no text: its line {number + 1:,} has a NUL")
                number += 1
                yield line.strip()
    except UnicodeDecodeError:
        raise _BadError(f"is not UTF-8 text, in its line {number + 1:,} or after it") from None
    except _UNREADABLE as error:
        raise _BadError(f"cannot be read from its line {number + 1:,} on ({_in_a_line(error)})") from None


# What damaged files make the libraries raise.
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error)


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _opened(file: Path) -> Any:
    try:
        if file.suffix == ".gz":
            return gzip.open(file)
        if file.suffix == ".zst":
            return _pyarrow(file).input_stream(os.fspath(file), compression="zstd")
        return open(file, "rb")
    except OSError as error:
        raise _BadError(f"cannot be read: {error.strerror or error}") from None


def _pyarrow(file: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BertjaxError(f"to read {file} pyarrow is needed: pip install 'bertjax[parquet]'") from None
    return pyarrow
