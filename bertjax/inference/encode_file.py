"""A file of texts to a file of vectors, in flat memory; it may be killed at any time, and the same call goes on.

Lines are encoded in windows, each of which begins where it would have begun without a kill, so that the vectors are
the same to the bit.
"""

import collections
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
from bertjax.inference.encoder import Encoder
from bertjax.inference.engine import Pooling
from bertjax.inference.inputs import Text
from bertjax.inference.partial_vectors import PartialVectors
from bertjax.inference.text_lines import Window, open_lines, source_name, windows
from bertjax.inference.vector_files import check_format
from bertjax.runs.signals import terminated_as_interrupted

logger = logging.getLogger(__name__)


def check_out(out: Path, pooling: Pooling | None) -> None:
    """Raises BertjaxError where vectors of this pooling cannot be written to `out`."""
    check_format(out, several=pooling == "tokens")
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
) -> None:
    """Writes one vector, or all tokens' vectors, for each line; a line with a tab in it is a pair of texts.

    Args:
      encoder: what makes the vectors.
      source: a file of UTF-8 text, or "-" for standard input.
      out: .npy, float32 [lines, size]; .safetensors, `vectors` likewise; or .parquet with `line`, from 1, and
        `vector`. All tokens are `vectors` [tokens, hidden] in .safetensors, of which line n has those from `offsets`[n]
        on; in .parquet a list of `vectors` a line.
      pooling: as for `Encoder.encode`, and so are `normalize`, `truncate` and `prompt`.

    Raises:
      BertjaxError: a file cannot be read or written, `out` exists, a line is no text, or other vectors are begun there.
      KeyboardInterrupt: after Ctrl-C or SIGTERM. What is done is kept, and gone on with by the same call.
    """
    check_out(out, pooling)
    asked = {"pooling": pooling, "normalize": normalize, "prompt": prompt}
    settings = {key: "default" if value is None else value for key, value in asked.items()}
    settings |= {"truncate": truncate, "precision": encoder.precision, "model": encoder.fingerprint()}
    partial = PartialVectors(out, settings, encoder.vector_size(pooling))
    with open_lines(source) as (lines, size), terminated_as_interrupted(), partial.opened(), _progress(size) as bar:
        digest = hashlib.sha256()
        for line in itertools.islice(lines, partial.place.lines):
            digest.update(line)
            bar.update(len(line))
        if digest.hexdigest() != partial.place.digest:
            raise BertjaxError(
                f"{partial.folder} holds vectors of other texts than the first {partial.place.lines:,} lines of "
                f"{source_name(source)}; give the same texts, another --out, or remove it"
            )
        if before := partial.place.lines:
            with tqdm.external_write_mode():
                logger.info("going on after line %s, up to which %s holds the vectors", f"{before:,}", partial.folder)
        in_flight: collections.deque[Window] = collections.deque()

        def window_items() -> Iterator[list[Text]]:
            for window in windows(lines, source, after=before, digest=digest, tokens=encoder.tokens_per_window):
                in_flight.append(window)
                yield window.items

        start, compiled_before = time.perf_counter(), encoder.compile_seconds

        def seconds() -> float:
            return time.perf_counter() - start - (encoder.compile_seconds - compiled_before)

        for vectors in encoder.stream(
            window_items(),
            pooling=pooling,
            normalize=normalize,
            truncate=truncate,
            prompt=prompt,
            name=lambda number: f"line {before + number + 1} of {source_name(source)}",
        ):
            window = in_flight.popleft()
            partial.append(vectors, window.end)
            rate = (window.end.lines - before) / seconds()
            bar.set_description_str(f"{window.end.lines:,} texts, {rate:,.0f} texts/s", refresh=False)
            bar.update(window.num_bytes)
        shape = partial.finish()
        took, compiling = seconds(), encoder.compile_seconds - compiled_before
    new = partial.place.lines - before
    figures = f"{new:,} texts in {took:,.1f} s, {new / took:,.0f} texts/s"
    logger.info("%s", f"{figures} (compilation took {compiling:,.1f} s more); {shown(out)}: {shape}")


def _progress(size: int | None) -> Any:
    form = "{percentage:3.0f}% |{bar}| {desc} {remaining} left" if size else "{desc} {elapsed}"
    return tqdm(total=size, disable=not sys.stderr.isatty(), bar_format=form, dynamic_ncols=True, desc="compiling")
