"""Files of vectors: .npy, .safetensors, Parquet or an index, made at the end of rows that were written one by one.

Before the rows `HEADER` bytes stay free: .npy and .safetensors say there how many rows follow, which is known last.
"""

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertjax.errors import BertjaxError

HEADER = 256
INDEX = ".index"
SUFFIXES = (".npy", ".parquet", ".safetensors", INDEX)
KEEPING = (".parquet", INDEX)  # that have what is kept of each row beside its vector


class RawVectors(NamedTuple):
    """Rows of float32 as they were written."""

    path: Path  # a file of HEADER bytes, then the rows
    num_rows: int
    hidden_size: int
    num_texts: int
    ends: Path | None = None  # where a text has several rows: a file of int64, the rows up to the end of each text
    records: Path | None = None  # a line of JSON a text


def check_format(out: Path, *, several: bool) -> None:
    """Raises BertjaxError where a file of that name cannot be made.

    Args:
      out: the file; its suffix tells the format.
      several: a text has several rows.
    """
    if out.suffix not in SUFFIXES:
        raise BertjaxError(f"--out {out} does not end in {', '.join(SUFFIXES)}; give a name that does")
    if several and out.suffix in (".npy", INDEX):
        raise BertjaxError(
            f"--out {out} cannot hold all tokens, of which every text has another number; "
            "give a name in .safetensors or .parquet"
        )
    if out.suffix == INDEX:
        check_usearch()
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise BertjaxError(f"to write {out} pyarrow is needed: pip install 'bertjax[parquet]'")


def check_usearch(instead: str = "") -> None:
    """Raises BertjaxError where usearch is not installed.

    Args:
      instead: what can be done without it, as a clause.
    """
    try:
        import usearch.index  # noqa: F401
    except ImportError:
        remedy = f"pip install 'bertjax[search]'{instead and f', or {instead}'}"
        raise BertjaxError(f"an index needs usearch, which is not installed: {remedy}") from None


def finish(raw: RawVectors, out: Path) -> None:
    """Turns the rows into the .npy or .safetensors that `out` is, and puts it there: the file of rows is moved.

    Raises:
      OSError: it cannot be written; called again, this goes on.
    """
    write_header(raw, out.suffix)
    os.replace(raw.path, out)


def write_header(raw: RawVectors, suffix: str) -> None:
    """Makes the file of rows one of the format that has this suffix, .npy or .safetensors."""
    with open(raw.path, "r+b") as file:
        if raw.ends is not None:
            file.seek(0, os.SEEK_END)
            file.write(bytes(8))
            with open(raw.ends, "rb") as ends:
                shutil.copyfileobj(ends, file)
        file.seek(0)
        file.write(_npy_header(raw) if suffix == ".npy" else _safetensors_header(raw))
        file.flush()
        os.fsync(file.fileno())


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
