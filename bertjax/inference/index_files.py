"""The writing of an index: the vectors and records as they were written one by one, and the graph that is made of them.

Letters: n vectors.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertjax.inference.vector_files import RawVectors, write_header
from bertjax.inference.vector_index import ABOUT, GRAPH, OFFSETS, RECORDS, VECTORS, About, build_graph, write_about
from bertjax.storage.atomic import atomic_folder


class Made(NamedTuple):
    """How the vectors of an index are made, and so those of queries."""

    model: str  # the folder, or the name on the hub
    fingerprint: str  # of that model
    precision: str
    pooling: str | None
    normalize: bool | None
    prompt: str | None
    truncate: bool
    columns: Sequence[str]  # of the texts in records


def write_index(made: Made, raw: RawVectors, out: Path) -> None:
    """Writes the folder of an index, whole or not at all; the rows stay as they are.

    Raises:
      OSError: it cannot be written; called again, this begins anew with the graph.
    """
    assert raw.records is not None
    write_header(raw, ".npy")
    with atomic_folder(out) as folder, open(raw.records, "rb") as lines:
        _take(raw.path, folder / VECTORS)
        _take(raw.records, folder / RECORDS)
        offsets_n = np.cumsum([0, *(len(line) for line in lines)], dtype=np.int64)
        np.save(folder / OFFSETS, offsets_n)
        build_graph(np.load(folder / VECTORS, mmap_mode="r" if raw.num_rows else None), folder / GRAPH)
        graph_bytes = (folder / GRAPH).stat().st_size
        told = made._asdict() | {"columns": [*made.columns]}
        write_about(
            About(**told, num_vectors=raw.num_rows, size=raw.hidden_size, graph_bytes=graph_bytes), folder / ABOUT
        )


def _take(file: Path, place: Path) -> None:
    """Gives a file a second name, or copies it where the file system has no such names."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)
