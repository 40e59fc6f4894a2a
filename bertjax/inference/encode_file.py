"""Files of texts to a file of vectors, in flat memory; it may be killed at any time, and the same call goes on.

Rows are encoded in windows, each of which begins where it would have begun without a kill, so that the vectors are
the same to the bit.
"""

import collections
import functools
import hashlib
import itertools
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bertjax.errors import BertjaxError, shown
from bertjax.inference import index_files, vector_files
from bertjax.inference.encoder import Encoder
from bertjax.inference.engine import Pooling
from bertjax.inference.inputs import Text
from bertjax.inference.partial_vectors import PartialVectors, Writer
from bertjax.inference.rows import Reading, Row, Window, bytes_of, find_sources, read_rows, windows
from bertjax.inference.text_lines import source_name
from bertjax.inference.vector_tables import write_parquet
from bertjax.runs.signals import terminated_as_interrupted

logger = logging.getLogger(__name__)


def check_out(out: Path, pooling: Pooling | None, keep: tuple[str, ...] | None = None) -> None:
    """Raises BertjaxError where vectors of this pooling, with these columns, cannot be written to `out`."""
    vector_files.check_format(out, several=pooling == "tokens")
    if keep is not None and out.suffix not in vector_files.KEEPING:
        known = " or ".join(vector_files.KEEPING)
        raise BertjaxError(f"--out {out} has vectors alone, and no columns (--keep); give a name in {known}")
    if os.path.lexists(out):
        raise BertjaxError(f"--out {out} exists and is left as it is; give another name")
    if not out.parent.is_dir():
        raise BertjaxError(f"--out {out}: there is no folder {out.parent}; make it first")


def encode_file(
    encoder: Encoder,
    source: str,
    out: Path,
    *,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    truncate: bool = False,
    prompt: str | None = None,
    columns: tuple[str, ...] = (),
    keep: tuple[str, ...] | None = None,
    part: tuple[int, int] = (1, 1),
    model: str = "",
) -> None:
    """Writes one vector, or all tokens' vectors, for each row: a record, or a line, with a tab in it a pair of texts.

    Args:
      encoder: what makes the vectors.
      source: "-" for standard input, or files as `find_sources` takes them, of UTF-8 text or of records.
      out: .npy, float32 [rows, size]; .safetensors, `vectors` likewise; .parquet with `vector` and what is kept; or
        .index, a folder in which near ones are found. All tokens are `vectors` [tokens, hidden] in .safetensors, of
        which row n has those from `offsets`[n] on; in .parquet a list of `vectors` a row.
      pooling: as for `Encoder.encode`, and so are `normalize`, `truncate` and `prompt`.
      columns: of the text in files of records, or of both of a pair; by default "text".
      keep: columns that are kept beside each vector; by default all, and of lines their numbers.
      part: (i, n) for the i-th of n parts: every n-th row, from the i-th on.
      model: by which a search in an index finds the encoder again: a folder, or a name on the hub.

    Raises:
      BertjaxError: a file cannot be read or written, `out` exists, a row has no text, or other vectors are begun there.
      KeyboardInterrupt: after Ctrl-C or SIGTERM. What is done is kept, and gone on with by the same call.
    """
    check_out(out, pooling, keep)
    if out.suffix not in vector_files.KEEPING:
        keep = ()
    files = find_sources(source)
    how: dict[str, Any] = {"pooling": pooling, "normalize": normalize, "prompt": prompt, "truncate": truncate}
    made = index_files.Made(model, encoder.fingerprint(), encoder.precision, **how, columns=columns)
    asked = how | {"keep": keep if keep is None else [*keep]}
    settings = {key: "default" if value is None else value for key, value in asked.items()}
    settings |= {"column": [*columns], "split": f"{part[0]}/{part[1]}"}
    settings |= {"precision": encoder.precision, "model": made.fingerprint}
    partial = PartialVectors(out, settings, encoder.vector_size(pooling), _writer(out, made))
    reading = Reading(columns, keep, *part, text_of_lines=out.suffix == vector_files.INDEX)
    with terminated_as_interrupted(), partial.opened(), _progress(bytes_of(files)) as bar:
        work = _Work(encoder, how, partial, bar)
        work.skip_what_is_done(rows := read_rows(files, reading), source)
        work.encode(rows)
        shape = partial.finish()
    logger.info("%s", f"{work.figures()}; {shown(out)}: {shape}")


def _writer(out: Path, made: index_files.Made) -> Writer:
    if out.suffix == vector_files.INDEX:
        return functools.partial(index_files.write_index, made)
    return write_parquet if out.suffix == ".parquet" else vector_files.finish


class _Work:
    """What is still to be encoded, and how fast that goes."""

    def __init__(self, encoder: Encoder, how: dict[str, Any], partial: PartialVectors, bar: Any):
        self._encoder, self._how, self._partial, self._bar = encoder, how, partial, bar
        self._digest, self._before = hashlib.sha256(), partial.place.lines
        self._in_flight: collections.deque[Window] = collections.deque()
        self._began, self._compiled_before = 0.0, 0.0
        self._took = self._compiling = 0.0

    def skip_what_is_done(self, rows: Iterator[Row], source: str) -> None:
        """Takes the rows whose vectors are there. Raises BertjaxError where they are of other rows."""
        for row in itertools.islice(rows, self._before):
            self._digest.update(row.content + row.record)
            self._bar.update(len(row.content))
        folder, before = self._partial.folder, f"{self._before:,}"
        if self._digest.hexdigest() != self._partial.place.digest:
            raise BertjaxError(
                f"{folder} holds vectors of other texts than the first {before} lines of "
                f"{source_name(source)}; give the same texts, another --out, or remove it"
            )
        if self._before:
            with tqdm.external_write_mode():
                logger.info("going on after line %s, up to which %s holds the vectors", before, folder)

    def encode(self, rows: Iterator[Row]) -> None:
        """Encodes the other rows, window after window."""
        self._began, self._compiled_before = time.perf_counter(), self._encoder.compile_seconds
        for vectors in self._encoder.stream(self._texts(rows), **self._how, name=self._place_of):
            window = self._in_flight.popleft()
            self._partial.append(vectors, window)
            rate = (window.end.lines - self._before) / self._seconds()
            self._bar.set_description_str(f"{window.end.lines:,} texts, {rate:,.0f} texts/s", refresh=False)
            self._bar.update(window.num_bytes)
        self._took = self._seconds()

    def figures(self) -> str:
        """Returns how fast that was, as a line tells it."""
        new = self._partial.place.lines - self._before
        rate = f"{new:,} texts in {self._took:,.1f} s, {new / self._took:,.0f} texts/s"
        return f"{rate} (compilation took {self._encoder.compile_seconds - self._compiled_before:,.1f} s more)"

    def _texts(self, rows: Iterator[Row]) -> Iterator[list[Text]]:
        tokens = self._encoder.tokens_per_window
        for window in windows(rows, after=self._before, digest=self._digest, tokens=tokens):
            self._in_flight.append(window)
            yield [row.text for row in window.rows]

    def _place_of(self, number: int) -> str:
        """Returns what an error calls a text, by its number among those that are encoded."""
        near = next(window for window in reversed(tuple(self._in_flight)) if window.first <= number)
        return str(near.rows[number - near.first].place)

    def _seconds(self) -> float:
        compiling = self._encoder.compile_seconds - self._compiled_before
        return time.perf_counter() - self._began - compiling


def _progress(size: int | None) -> Any:
    form = "{percentage:3.0f}% |{bar}| {desc} {remaining} left" if size else "{desc} {elapsed}"
    return tqdm(total=size, disable=not sys.stderr.isatty(), bar_format=form, dynamic_ncols=True, desc="compiling")
