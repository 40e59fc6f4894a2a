"""An index of vectors: a folder with the vectors, the records that they are of, and a graph of near ones (HNSW).

usearch makes the graph, and holds a vector there in a byte a number: a quarter of its size. What it finds is put in
order by the vectors themselves, so that scores are exact cosines. Letters: n vectors, q queries, k found, d numbers.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from bertjax.config.checks import as_type
from bertjax.errors import BertjaxError
from bertjax.inference.engine import unit
from bertjax.inference.vector_files import INDEX, check_usearch

logger = logging.getLogger(__name__)

ABOUT, VECTORS, GRAPH, RECORDS, OFFSETS = "index.json", "vectors.npy", "graph.usearch", "records.jsonl", "offsets.npy"
_FORMAT = 1
_AT_ONCE = 1 << 14  # vectors that are read together
_CANDIDATES = 4  # that the graph is asked for, for each that is wanted
_LEAST_LOOK = 128  # candidates that the graph's own search keeps, at least
_EQUAL = 1e-6  # cosines that differ by less
_SAMPLE = 200  # queries by which recall is measured


class About(NamedTuple):
    """What index.json tells: which vectors these are, and how those of queries are made."""

    model: str  # the folder, or the name on the hub
    fingerprint: str  # of that model
    precision: str
    pooling: str | None
    normalize: bool | None
    prompt: str | None
    truncate: bool
    columns: Sequence[str]  # of the texts in records; none where they are lines
    num_vectors: int
    size: int  # numbers in a vector
    graph_bytes: int


class Found(NamedTuple):
    """The nearest vectors of each query, the nearest first."""

    numbers_qk: np.ndarray  # int64
    scores_qk: np.ndarray  # float32, cosines


class Recall(NamedTuple):
    """How much of what exact search finds the graph finds too, and how long both take for a query."""

    share: float
    top: int
    queries: int
    graph_seconds: float
    exact_seconds: float


def build_graph(vectors_nd: np.ndarray, path: Path) -> None:
    """Writes the graph of vectors, which are read some at a time; the graph itself is in memory until it is written."""
    from usearch.index import Index

    count, size = vectors_nd.shape
    graph, began = Index(ndim=size, metric="cos", dtype="i8"), time.perf_counter()
    with tqdm(total=count, desc="indexing", leave=False, disable=None) as bar:
        for start, some_nd in _in_parts(vectors_nd):
            graph.add(np.arange(start, start + len(some_nd)), some_nd)
            bar.update(len(some_nd))
    graph.save(str(path))
    seconds = time.perf_counter() - began
    logger.info("indexed %s vectors in %.1f s, %.1f MB", f"{count:,}", seconds, path.stat().st_size / 1e6)


def write_about(about: About, path: Path) -> None:
    """Writes index.json."""
    path.write_text(json.dumps({"format": _FORMAT} | about._asdict(), indent=1) + "\n", encoding="utf-8")


class VectorIndex:
    """An index that was written. Raises BertjaxError where it is none, or not whole."""

    def __init__(self, folder: Path):
        self.folder, self.about = folder, _read_about(folder)
        count, size = self.about.num_vectors, self.about.size
        self._vectors_nd = _mapped(folder / VECTORS, (count, size), np.float32)
        self._offsets_n = _mapped(folder / OFFSETS, (count + 1,), np.int64)
        _check_size(folder / RECORDS, int(self._offsets_n[-1]))
        _check_size(folder / GRAPH, self.about.graph_bytes)
        self._graph: Any = None

    def search(self, vectors_qd: np.ndarray, top: int, *, exact: bool = False) -> Found:
        """Returns the nearest vectors of each query; fewer than `top` where there are no more.

        Args:
          exact: every vector is looked at, not those that the graph leads to.
        """
        if vectors_qd.shape[1] != self.about.size:
            given = f"vectors of {vectors_qd.shape[1]} numbers, and {self.folder} has such of {self.about.size}"
            raise BertjaxError(f"the model makes {given}; give the model that made the index")
        vectors_qd, top = unit(vectors_qd.astype(np.float32)), min(top, self.about.num_vectors)
        return self._exact(vectors_qd, top) if exact or not top else self._by_graph(vectors_qd, top)

    def record(self, number: int) -> dict[str, Any]:
        """Returns what was written beside a vector."""
        start, end = self._offsets_n[number : number + 2].tolist()
        try:
            with open(self.folder / RECORDS, "rb") as file:
                file.seek(start)
                record = json.loads(file.read(end - start))
        except (OSError, ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise _damaged(self.folder / RECORDS)
        return record

    def recall(self, top: int = 10) -> Recall:
        """Returns how well the graph does for vectors of the index, each of which is not to find itself."""
        if (count := self.about.num_vectors) < 2:
            raise BertjaxError(f"{self.folder} has {count} vectors; recall is of two or more")
        chosen_q = np.sort(np.random.default_rng(0).choice(count, min(_SAMPLE, count), replace=False))
        vectors_qd, times, scores = self._vectors_nd[chosen_q], [], []
        self._opened()
        for exact in (False, True):
            began = time.perf_counter()
            found = self.search(vectors_qd, top + 1, exact=exact)
            times.append((time.perf_counter() - began) / len(chosen_q))
            found_by = zip(chosen_q, *found, strict=True)
            scores.append([scores_k[numbers_k != own][:top] for own, numbers_k, scores_k in found_by])
        # By scores: of equal ones either is as good.
        hits = sum(int((graph_k >= exact_k[-1] - _EQUAL).sum()) for graph_k, exact_k in zip(*scores, strict=True))
        return Recall(hits / sum(map(len, scores[1])), top, len(chosen_q), *times)

    def _by_graph(self, vectors_qd: np.ndarray, top: int) -> Found:
        matches = self._opened().search(vectors_qd, min(_CANDIDATES * top, self.about.num_vectors))
        numbers_qc = np.atleast_2d(matches.keys).astype(np.int64)
        if numbers_qc.max(initial=0) >= self.about.num_vectors:
            raise _damaged(self.folder / GRAPH)
        scores_qc = np.einsum("qcd,qd->qc", unit(self._vectors_nd[numbers_qc]), vectors_qd)
        return _best(numbers_qc, scores_qc, top)

    def _exact(self, vectors_qd: np.ndarray, top: int) -> Found:
        best = Found(np.zeros((len(vectors_qd), 0), np.int64), np.zeros((len(vectors_qd), 0), np.float32))
        for start, some_nd in _in_parts(self._vectors_nd):
            numbers_qn = np.broadcast_to(np.arange(start, start + len(some_nd)), (len(vectors_qd), len(some_nd)))
            scores_qn = vectors_qd @ unit(some_nd).T
            numbers_qn, scores_qn = np.hstack((best.numbers_qk, numbers_qn)), np.hstack((best.scores_qk, scores_qn))
            best = _best(numbers_qn, scores_qn, top)
        return best

    def _opened(self) -> Any:
        """Returns the graph, which is mapped into memory, not read."""
        if self._graph is None:
            check_usearch("give --exact")
            from usearch.index import Index

            try:
                self._graph = Index.restore(str(self.folder / GRAPH), view=True)
            except (RuntimeError, ValueError, OSError):
                self._graph = None
            if self._graph is None or (self._graph.ndim, len(self._graph)) != (self.about.size, self.about.num_vectors):
                raise _damaged(self.folder / GRAPH)
            self._graph.expansion_search = _LEAST_LOOK
        return self._graph


def _in_parts(vectors_nd: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(vectors_nd), _AT_ONCE):
        yield start, np.asarray(vectors_nd[start : start + _AT_ONCE])


def _best(numbers_qc: np.ndarray, scores_qc: np.ndarray, top: int) -> Found:
    """Returns the best of some, equal ones in the order of their numbers."""
    if scores_qc.shape[1] > top:
        few_qk = np.argpartition(-scores_qc, top - 1, axis=1)[:, :top]
        numbers_qc, scores_qc = (np.take_along_axis(of, few_qk, axis=1) for of in (numbers_qc, scores_qc))
    order_qk = np.lexsort((numbers_qc, -scores_qc), axis=1)
    return Found(*(np.take_along_axis(of, order_qk, axis=1) for of in (numbers_qc, scores_qc)))


def _read_about(folder: Path) -> About:
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        if partial.is_dir():
            raise BertjaxError(f"{folder} is not finished ({partial} is there); give its encode command again")
        raise BertjaxError(f"{folder} is no index; give a folder that 'bertjax encode --out NAME{INDEX}' made")
    try:
        told = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        told_format = told.pop("format", None)
    except FileNotFoundError:
        raise BertjaxError(f"{folder} is no index: it has no {ABOUT}; give a folder that 'encode' made") from None
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):  # some other JSON, or none
        raise _damaged(folder / ABOUT) from None
    if told_format != _FORMAT:
        raise BertjaxError(f"{folder} is an index of format {told_format}, and {_FORMAT} is read; make it again")
    try:
        about = About(**told)
        columns = about.columns if isinstance(about.columns, list) else [None]
        texts = (about.model, about.fingerprint, about.precision, *columns)
        numbers = (about.num_vectors, about.size, about.graph_bytes)
        sound = all(isinstance(text, str) for text in texts) and all(type(n) is int and n >= 0 for n in numbers)
        as_type(about.truncate, bool, ABOUT)
        for kind, value in ((str | None, about.pooling), (bool | None, about.normalize), (str | None, about.prompt)):
            as_type(value, kind, ABOUT)
    except (TypeError, BertjaxError):
        sound = False
    if not sound:
        raise _damaged(folder / ABOUT)
    return about


def _mapped(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r" if os.path.getsize(path) and 0 not in shape else None, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise _damaged(path) from None
    if array.shape != shape or array.dtype != dtype:
        raise _damaged(path)
    return array


def _check_size(path: Path, size: int) -> None:
    if not path.is_file() or path.stat().st_size != size:
        raise _damaged(path)


def _damaged(path: Path) -> BertjaxError:
    return BertjaxError(f"{path} is not as it was written; make the index again")
