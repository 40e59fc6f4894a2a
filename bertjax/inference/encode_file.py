"""A file of texts to a file of vectors, a line a text, in flat memory; it may be killed at any time, and goes on.

Meanwhile the vectors are in a folder beside the file to be, OUT.partial, with a state.json that tells how many of them
count, and of which lines they are. Lines are encoded in windows, each of which begins where it would have begun
without a kill, so that the vectors are the same to the bit.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from bertjax.errors import BertjaxError
from bertjax.inference.encoder import Encoder
from bertjax.inference.engine import Pooling, Vectors
from bertjax.inference.texts import Item
from bertjax.inference.vector_files import HEADER, Rows, check_format, finish
from bertjax.runs.signals import terminated_as_interrupted
from bertjax.storage.atomic import atomic_write
from bertjax.storage.locks import locked


class Place(NamedTuple):
    """After a line."""

    lines: int = 0  # so many lie before it
    digest: str = hashlib.sha256().hexdigest()  # of their bytes


def check_out(out: Path, pooling: Pooling) -> None:
    """Raises BertjaxError where vectors cannot be written there."""
    check_format(out, several=pooling == "tokens")
    if os.path.lexists(out):
        raise BertjaxError(f"--out {out} exists and is left as it is; give another name")
    if not out.parent.is_dir():
        raise BertjaxError(f"--out {out}: there is no folder {out.parent}; make it first")


def check_input(source: str) -> None:
    """Raises BertjaxError where there are no texts. Nothing is opened: of a pipe that can be done once only."""
    if source != "-" and not os.path.exists(source):
        raise BertjaxError(f"--input {source} is not there; give a file of text, or - for standard input")


def encode_file(
    encoder: Encoder,
    source: str,
    out: Path,
    *,
    pooling: Pooling = "mean",
    normalize: bool = False,
    truncate: bool = False,
) -> None:
    """Writes one vector, or all tokens' vectors, for each line; a line with a tab in it is a pair of texts.

    Args:
      source: a file of UTF-8 text, or "-" for standard input.
      out: .npy, float32 [lines, hidden]; .safetensors, `vectors` likewise; or .parquet with `line`, from 1, and
        `vector`. All tokens are `vectors` [tokens, hidden] in .safetensors, of which line n has those from `offsets`[n]
        on; in .parquet a list of `vectors` a line.

    Raises:
      BertjaxError: a file cannot be read or written, `out` exists, a line is no text, or other vectors are begun there.
      KeyboardInterrupt: after Ctrl-C or SIGTERM. What is done is kept, and gone on with by the same call.
    """
    check_out(out, pooling)
    asked = {"pooling": pooling, "normalize": normalize, "truncate": truncate, "precision": encoder.precision}
    partial = Partial(out, {**asked, "model": encoder.fingerprint()}, encoder.config.hidden_size)
    with _opened(source) as (lines, size), terminated_as_interrupted(), partial.opened(), _progress(size) as bar:
        digest = hashlib.sha256()
        for line in itertools.islice(lines, partial.place.lines):
            digest.update(line)
            bar.update(len(line))
        if digest.hexdigest() != partial.place.digest:
            raise BertjaxError(
                f"{partial.folder} holds vectors of other texts than the first {partial.place.lines:,} lines of "
                f"{_named(source)}; give the same texts, another --out, or remove it"
            )
        if before := partial.place.lines:
            tqdm.write(f"going on after line {before:,}, up to which {partial.folder} holds the vectors")
        places: collections.deque[tuple[Place, int]] = collections.deque()
        windows = _windows(lines, source, before, digest, encoder.tokens_at_once, places)
        start = time.perf_counter()
        for vectors in encoder.stream(
            windows,
            pooling=pooling,
            normalize=normalize,
            truncate=truncate,
            name=lambda number: f"line {before + number + 1} of {_named(source)}",
        ):
            place, num_bytes = places.popleft()
            partial.append(vectors, place)
            rate = (place.lines - before) / (time.perf_counter() - start)
            bar.set_description_str(f"{place.lines:,} texts, {rate:,.0f} texts/s", refresh=False)
            bar.update(num_bytes)
        shape = partial.finish()
        seconds = time.perf_counter() - start
    new = partial.place.lines - before
    print(f"{new:,} texts in {seconds:,.1f} s, {new / seconds:,.0f} texts/s; {out}: {shape}")


class Partial:
    """The folder OUT.partial: the vectors so far, and the place in the input up to which they are.

    Args:
      asked: what they depend on beside the texts.
    """

    def __init__(self, out: Path, asked: dict[str, Any], hidden_size: int):
        self.folder, self.place = out.with_name(f"{out.name}.partial"), Place()
        self._out, self._asked, self._hidden_size = out, asked, hidden_size
        self._rows = 0
        self._vectors, self._ends = self.folder / "vectors", self.folder / "ends"
        self._state, self._lock = self.folder / "state.json", self.folder / "lock"

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Begins or goes on, keeping others out; an end that is not the end of the texts is told.

        Raises:
          BertjaxError: what is there was made otherwise or is damaged, is in use, or cannot be written.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            with locked(self._lock, instead="give another --out"):
                self._go_on()
                try:
                    yield
                finally:
                    if self.folder.is_dir() and not self.place.lines:
                        shutil.rmtree(self.folder)
        except OSError as error:
            remedy = "mend that and give the same command again, or give another --out"
            what = f"cannot write to {error.filename or self.folder}: {error.strerror}; {remedy}"
            raise BertjaxError(what) from error
        except KeyboardInterrupt:
            kept = f"{self.place.lines:,} texts are done and kept in {self.folder}; the same command goes on from there"
            print(f"\nstopped: {kept if self.place.lines else 'nothing is done yet'}", file=sys.stderr)
            raise

    def _go_on(self) -> None:
        if not self._state.exists() or not self._vectors.exists():  # killed before the first line, or after the last
            self._state.unlink(missing_ok=True)
            self._vectors.write_bytes(bytes(HEADER))
            self._ends.write_bytes(b"")
            return
        damaged = BertjaxError(f"{self.folder} is not as it was written; remove it to begin anew")
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            place, rows, asked = Place(*state["place"]), state["rows"], dict(state["asked"])
            if not all(type(number) is int and number > 0 for number in (place.lines, rows)):
                raise damaged
        except (ValueError, TypeError, KeyError, RecursionError):
            raise damaged from None
        for key, value in self._asked.items():
            if asked.get(key) != value:
                what = "another model" if key == "model" else f"{key}={asked.get(key)}, not {value}"
                raise BertjaxError(
                    f"{self.folder} holds vectors made with {what}; go on as it was begun, give another --out, "
                    "or remove it to begin anew"
                )
        sizes = {self._vectors: HEADER + 4 * rows * self._hidden_size}
        sizes |= {self._ends: 8 * place.lines} if self._several else {}
        for path, size in sizes.items():
            if not path.exists() or path.stat().st_size < size:
                raise damaged
            os.truncate(path, size)
        self.place, self._rows = place, rows

    @property
    def _several(self) -> bool:
        return self._asked["pooling"] == "tokens"

    def append(self, vectors: Vectors, place: Place) -> None:
        """Writes a window's; from then on it is done. Raises OSError."""
        if isinstance(vectors, list):
            counts = np.array([len(of_text) for of_text in vectors], np.int64)
            _append(self._ends, [(self._rows + np.cumsum(counts)).astype("<i8")])
            self._rows += int(counts.sum())
        else:
            self._rows += len(vectors)
        _append(self._vectors, vectors if isinstance(vectors, list) else [vectors])
        self.place = place
        with atomic_write(self._state) as file:
            json.dump({"asked": self._asked, "place": place, "rows": self._rows}, file, indent=1)

    def finish(self) -> str:
        """Puts the file in its place and tells what is in it. Raises OSError, or BertjaxError where there is one."""
        if os.path.lexists(self._out):
            raise BertjaxError(f"{self._out} exists by now and is left as it is; move it and give the same command")
        ends = self._ends if self._several else None
        finish(Rows(self._vectors, self._rows, self._hidden_size, self.place.lines, ends), self._out)
        shutil.rmtree(self.folder)
        return f"float32 [{self._rows}, {self._hidden_size}]"


def _append(path: Path, arrays: Iterable[np.ndarray]) -> None:
    with open(path, "ab") as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _opened(source: str) -> Iterator[tuple[Iterator[bytes], int | None]]:
    """The lines and, of a file, its size in bytes."""
    if source == "-":
        yield _lines(sys.stdin.buffer, source), None
        return
    try:
        file = open(source, "rb")
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from None
    with file:
        yield _lines(file, source), os.fstat(file.fileno()).st_size or None


def _lines(file: BinaryIO, source: str) -> Iterator[bytes]:
    try:
        yield from file
    except OSError as error:
        raise _unreadable(source, error) from None


def _unreadable(source: str, error: OSError | ValueError) -> BertjaxError:
    reason = getattr(error, "strerror", None) or error
    return BertjaxError(f"--input {source} cannot be read: {reason}; give a file of text, or - for standard input")


def _named(source: str) -> str:
    return "standard input" if source == "-" else source


def _windows(
    lines: Iterable[bytes],
    source: str,
    before: int,
    digest: Any,
    tokens: int,
    places: collections.deque[tuple[Place, int]],
) -> Iterator[list[Item]]:
    """Some thousands of lines each, cut by what is in them alone; where each ends, and its bytes, go to `places`."""
    items: list[Item] = []
    num_bytes = 0
    number = before
    for number, line in enumerate(lines, before + 1):
        digest.update(line)
        items.append(_item(line, number, source))
        num_bytes += len(line)
        if len(items) >= tokens // 8 or num_bytes >= tokens * 4:
            places.append((Place(number, digest.hexdigest()), num_bytes))
            yield items
            items, num_bytes = [], 0
    if items:
        places.append((Place(number, digest.hexdigest()), num_bytes))
        yield items


def _item(line: bytes, number: int, source: str) -> Item:
    where = f"line {number} of {_named(source)}"
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise BertjaxError(f"{where} is not UTF-8 text (byte {error.start + 1}); convert the texts first") from None
    first, *rest = text.removesuffix("\n").removesuffix("\r").split("\t")
    if len(rest) > 1:
        raise BertjaxError(f"{where} has {len(rest)} tabs; one makes a pair of texts, so give one at most")
    return first, (rest[0] if rest else None)


def _progress(size: int | None) -> Any:
    form = "{percentage:3.0f}% |{bar}| {desc} {remaining} left" if size else "{desc} {elapsed}"
    return tqdm(total=size, disable=not sys.stderr.isatty(), bar_format=form, dynamic_ncols=True, desc="compiling")
