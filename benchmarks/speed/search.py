"""Made-up vectors in clusters to an index, and queries near the same centres: time, memory, and what is found.

Letters: n vectors, c centres, q queries, d numbers.
"""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.table import describe_machine
from bertjax.inference.index_files import Made, write_index
from bertjax.inference.vector_files import HEADER, RawVectors
from bertjax.inference.vector_index import GRAPH, VectorIndex

_TOP = 10
_IN_A_CLUSTER = 100
_SPREAD = 0.7  # of a cluster, beside the centres' 1
_AT_ONCE = 1 << 14


def measure(folder: Path, say: Callable[[str], None], *, vectors: int, size: int, queries: int) -> dict[str, Any]:
    """Returns the report.

    Args:
      vectors: how many; `size` numbers in each.
      queries: how many, none of which is in the index.
    """
    rng = np.random.default_rng(0)
    centres_cd = rng.standard_normal((max(1, vectors // _IN_A_CLUSTER), size), np.float32)
    raw, queries_qd = _write(folder, centres_cd, rng, vectors), _draw(centres_cd, rng, queries)
    say(f"{vectors:,} vectors of {size} numbers are written; building the index")
    before, began = _own_memory(), time.perf_counter()
    with _Memory() as memory:
        write_index(Made("made up", "", "float32", None, None, None, False, ()), raw, folder / "made-up.index")
    built, grown = time.perf_counter() - began, memory.most - before
    index = VectorIndex(folder / "made-up.index")
    index.search(queries_qd, _TOP)  # until the graph has been read
    seconds, found = [], []
    for query_d in queries_qd:
        began = time.perf_counter()
        found.append(set(index.search(query_d[None], _TOP).numbers_qk[0].tolist()))
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    exact_qk = index.search(queries_qd, _TOP, exact=True).numbers_qk
    exact = time.perf_counter() - began
    began = time.perf_counter()
    index.search(queries_qd[:1], _TOP, exact=True)
    return {
        "bench": "search",
        "machine": describe_machine(("usearch",)),
        "vectors": vectors,
        "size": size,
        "queries": queries,
        "build_seconds": built,
        "build_memory_bytes": grown,
        "graph_bytes": (folder / "made-up.index" / GRAPH).stat().st_size,
        "query_seconds": [float(np.quantile(seconds, share)) for share in (0.5, 0.99)],
        "exact_query_seconds": time.perf_counter() - began,
        "exact_seconds_of_many": exact / queries,
        "recall": sum(len(some & {*best}) for some, best in zip(found, exact_qk.tolist(), strict=True)) / exact_qk.size,
        "recall_of_its_own": index.recall(_TOP).share,
    }


def render(report: dict[str, Any]) -> str:
    """Returns the report as a table."""
    median, slow = report["query_seconds"]
    rows = {
        "built in": f"{report['build_seconds']:,.0f} s, {report['vectors'] / report['build_seconds']:,.0f} vectors/s",
        "memory for that": f"{report['build_memory_bytes'] / 2**20:,.0f} MiB",
        "graph": f"{report['graph_bytes'] / 2**20:,.0f} MiB on disk",
        "a query": f"{median * 1e3:.2f} ms (median), {slow * 1e3:.2f} ms (99 of 100)",
        "a query, exact": f"{report['exact_query_seconds'] * 1e3:,.0f} ms; "
        f"{report['exact_seconds_of_many'] * 1e3:,.1f} ms of {report['queries']:,} together",
        f"recall@{_TOP}": f"{report['recall']:.4f}; of its own vectors {report['recall_of_its_own']:.4f}",
    }
    machine = report["machine"]
    first = f"{report['vectors']:,} vectors of {report['size']} numbers, {report['queries']:,} queries; "
    first += f"{machine['processor']}, {machine['cores']} cores"
    return "\n".join([first, *(f"  {name:<16}{value}" for name, value in rows.items())])


def _draw(centres_cd: np.ndarray, rng: np.random.Generator, number: int) -> np.ndarray:
    chosen_n = rng.integers(len(centres_cd), size=number)
    return centres_cd[chosen_n] + _SPREAD * rng.standard_normal((number, centres_cd.shape[1]), np.float32)


def _write(folder: Path, centres_cd: np.ndarray, rng: np.random.Generator, vectors: int) -> RawVectors:
    path, records, size = folder / "vectors", folder / "records", centres_cd.shape[1]
    with open(path, "wb") as file, open(records, "w", encoding="ascii") as lines:
        file.write(bytes(HEADER))
        for start in range(0, vectors, _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, vectors))
            file.write(_draw(centres_cd, rng, len(some)).data)
            lines.writelines(f'{{"line": {number + 1}}}\n' for number in some)
    return RawVectors(path, vectors, size, vectors, records=records)


class _Memory:
    """The most memory of its own that the process has while the context lasts."""

    def __init__(self) -> None:
        self.most, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, _own_memory())
            if self._ended.wait(0.2):
                return


def _own_memory() -> int:
    """Returns the bytes that are this process's alone, without those of files; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    own = re.search(r"^RssAnon:\s+(\d+)", status.read_text() if status.exists() else "", re.MULTILINE)
    return int(own[1]) * 1024 if own else 0
