"""Files of vectors: .npy, .safetensors or Parquet, made at the end of float32 rows that were written one by one.

Before the rows `HEADER` bytes stay free: .npy and .safetensors say there how many rows follow, which is known last.
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
_NUMBERS_PER_GROUP = 2**22  # in a row group of Parquet, which is held in memory


class RawVectors(NamedTuple):
    """Rows of float32 as they were written."""

    path: Path  # a file of HEADER bytes, then the rows
    num_rows: int
    hidden_size: int
    num_texts: int
    ends: Path | None = None  # where a text has several rows: a file of int64, the rows up to the end of each text


def check_format(out: Path, *, several: bool) -> None:
    """Raises BertjaxError where a file of that name cannot be made.

    Args:
      out: the file; its suffix tells the format.
      several: a text has several raw.
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


def finish(raw: RawVectors, out: Path) -> None:
    """Turns the rows into a file in the format of `out`'s suffix, and puts it there; the rows may be moved into it.

    Raises:
      OSError: it cannot be written; called again, this goes on.
    """
    if out.suffix == ".parquet":
        with atomic_write(out, binary=True) as file:
            _write_parquet(raw, file)
        return
    with open(raw.path, "r+b") as file:
        if raw.ends is not None:
            file.seek(0, os.SEEK_END)
            file.write(bytes(8))
            with open(raw.ends, "rb") as ends:
                shutil.copyfileobj(ends, file)
        file.seek(0)
        file.write(_npy_header(raw) if out.suffix == ".npy" else _safetensors_header(raw))
        file.flush()
        os.fsync(file.fileno())
    os.replace(raw.path, out)


def _npy_header(raw: RawVectors) -> bytes:
    shape = (raw.num_rows, raw.hidden_size)
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape})
    start = np.lib.format.magic(1, 0) + (HEADER - 10).to_bytes(2, "little")
    return start + text.ljust(HEADER - 11).encode("ascii") + b"\n"


def _safetensors_header(raw: RawVectors) -> bytes:
    size = raw.num_rows * raw.hidden_size * 4
    tree = {"vectors": {"dtype": "F32", "shape": [raw.num_rows, raw.hidden_size], "data_offsets": [0, size]}}
    if raw.ends is not None:
        end = size + 8 * (raw.num_texts + 1)
        tree["offsets"] = {"dtype": "I64", "shape": [raw.num_texts + 1], "data_offsets": [size, end]}
    text = json.dumps(tree, separators=(",", ":"))
    return (HEADER - 8).to_bytes(8, "little") + text.ljust(HEADER - 8).encode("ascii")


def _write_parquet(raw: RawVectors, out: IO[bytes]) -> None:
    import pyarrow
    import pyarrow.parquet

    vector = pyarrow.list_(pyarrow.float32(), raw.hidden_size)
    column = ("vector", vector) if raw.ends is None else ("vectors", pyarrow.list_(vector))
    schema = pyarrow.schema([("line", pyarrow.int64()), column])
    with open(raw.path, "rb") as file, pyarrow.parquet.ParquetWriter(out, schema) as writer:
        file.seek(HEADER)
        line = 1
        for counts in _groups(raw):
            numbers = np.fromfile(file, "<f4", int(counts.sum()) * raw.hidden_size)
            array = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(numbers), type=vector)
            if raw.ends is not None:
                offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
                array = pyarrow.ListArray.from_arrays(pyarrow.array(offsets), array)
            lines = pyarrow.array(np.arange(line, line + len(counts)))
            writer.write_table(pyarrow.Table.from_arrays([lines, array], schema=schema))
            line += len(counts)


def _groups(raw: RawVectors) -> Iterator[np.ndarray]:
    """Yields how many rows each text has, for as many texts as make a row group."""
    most = max(1, _NUMBERS_PER_GROUP // raw.hidden_size)
    if raw.ends is None:
        for start in range(0, raw.num_texts, most):
            yield np.ones(min(most, raw.num_texts - start), np.int64)
        return
    with open(raw.ends, "rb") as file:
        yield from _groups_of(file, raw.num_texts, most)


def _groups_of(file: BinaryIO, texts: int, most: int) -> Iterator[np.ndarray]:
    done = last = 0
    while done < texts:
        file.seek(8 * done)
        ends = np.fromfile(file, "<i8", min(most, texts - done))
        ends = ends[: max(1, int(np.searchsorted(ends, last + most, "right")))]
        yield np.diff(ends, prepend=last)
        done, last = done + len(ends), int(ends[-1])
