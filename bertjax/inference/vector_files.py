"""Vectors as .npy, .safetensors or Parquet, made at the end of float32 rows that were written one after the other.

Before the rows stay `HEADER` bytes free: what .npy and .safetensors say there, how many rows follow, is known last.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np

from bertjax.errors import BertjaxError
from bertjax.storage.atomic import atomic_write

HEADER = 256
SUFFIXES = (".npy", ".parquet", ".safetensors")
_NUMBERS_AT_ONCE = 2**22  # of those copied, and of a row group of Parquet


class Rows(NamedTuple):
    """What was written."""

    path: Path  # HEADER bytes, then the rows
    num_rows: int
    hidden_size: int
    num_texts: int
    ends: Path | None = None  # where a text has several rows: after each text the number of rows so far, int64


def check_format(out: Path, *, several: bool) -> None:
    """Raises BertjaxError where a file of that name cannot be made.

    Args:
      several: a text has several rows.
    """
    if out.suffix not in SUFFIXES:
        raise BertjaxError(f"--out {out} does not end in .npy, .parquet or .safetensors; give a name that does")
    if several and out.suffix == ".npy":
        raise BertjaxError(
            f"--out {out} cannot hold all tokens, of which every text has another number; "
            "give a name in .safetensors or .parquet"
        )
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise BertjaxError(f"to write {out} pyarrow is needed: pip install 'bertjax[parquet]'")


def finish(rows: Rows, out: Path) -> None:
    """Makes the file and puts it in its place; the rows are in it, or are left where they are. Raises OSError."""
    if out.suffix == ".parquet":
        with atomic_write(out, binary=True) as written:
            _write_parquet(rows, written)
        return
    with open(rows.path, "r+b") as file:
        if rows.ends is not None:
            file.seek(0, os.SEEK_END)
            file.write(bytes(8))
            with open(rows.ends, "rb") as ends:
                shutil.copyfileobj(ends, file)
        file.seek(0)
        file.write(_npy_header(rows) if out.suffix == ".npy" else _safetensors_header(rows))
        file.flush()
        os.fsync(file.fileno())
    os.replace(rows.path, out)


def _npy_header(rows: Rows) -> bytes:
    shape = (rows.num_rows, rows.hidden_size)
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape})
    start = np.lib.format.magic(1, 0) + (HEADER - 10).to_bytes(2, "little")
    return start + text.ljust(HEADER - 11).encode("ascii") + b"\n"


def _safetensors_header(rows: Rows) -> bytes:
    size = rows.num_rows * rows.hidden_size * 4
    tree = {"vectors": {"dtype": "F32", "shape": [rows.num_rows, rows.hidden_size], "data_offsets": [0, size]}}
    if rows.ends is not None:
        end = size + 8 * (rows.num_texts + 1)
        tree["offsets"] = {"dtype": "I64", "shape": [rows.num_texts + 1], "data_offsets": [size, end]}
    text = json.dumps(tree, separators=(",", ":"))
    return (HEADER - 8).to_bytes(8, "little") + text.ljust(HEADER - 8).encode("ascii")


def _write_parquet(rows: Rows, written: IO[bytes]) -> None:
    import pyarrow
    import pyarrow.parquet

    vector = pyarrow.list_(pyarrow.float32(), rows.hidden_size)
    column = ("vector", vector) if rows.ends is None else ("vectors", pyarrow.list_(vector))
    schema = pyarrow.schema([("line", pyarrow.int64()), column])
    with open(rows.path, "rb") as file, pyarrow.parquet.ParquetWriter(written, schema) as writer:
        file.seek(HEADER)
        line = 1
        for counts in _groups(rows):
            numbers = np.fromfile(file, "<f4", int(counts.sum()) * rows.hidden_size)
            array = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(numbers), type=vector)
            if rows.ends is not None:
                offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
                array = pyarrow.ListArray.from_arrays(pyarrow.array(offsets), array)
            lines = pyarrow.array(np.arange(line, line + len(counts)))
            writer.write_table(pyarrow.Table.from_arrays([lines, array], schema=schema))
            line += len(counts)


def _groups(rows: Rows) -> Iterator[np.ndarray]:
    """How many rows each text has, for as many texts as are to be together in memory."""
    most = max(1, _NUMBERS_AT_ONCE // rows.hidden_size)
    if rows.ends is None:
        for start in range(0, rows.num_texts, most):
            yield np.ones(min(most, rows.num_texts - start), np.int64)
        return
    with open(rows.ends, "rb") as file:
        yield from _groups_of(file, rows.num_texts, most)


def _groups_of(file: BinaryIO, texts: int, most: int) -> Iterator[np.ndarray]:
    done = last = 0
    while done < texts:
        file.seek(8 * done)
        ends = np.fromfile(file, "<i8", min(most, texts - done))
        ends = ends[: max(1, int(np.searchsorted(ends, last + most, "right")))]
        yield np.diff(ends, prepend=last)
        done, last = done + len(ends), int(ends[-1])
