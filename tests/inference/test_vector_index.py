"""Indexes: what they find against all vectors by numpy, the texts and the model they lead to, and damaged ones."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusal

from bertjax.inference import index_files
from bertjax.inference.index_files import Made, write_index
from bertjax.inference.vector_files import HEADER, RawVectors, check_usearch
from bertjax.inference.vector_index import Found, VectorIndex

pytest.importorskip("usearch")
MADE = Made("nowhere", "0", "float32", None, None, None, False, ())
VECTORS = np.repeat(np.random.default_rng(0).standard_normal((40, 24), np.float32), 25, axis=0)
VECTORS += 0.7 * np.random.default_rng(1).standard_normal(VECTORS.shape, np.float32)  # clusters
QUERIES = VECTORS[::50] + 0.3


def write(folder: Path, vectors_nd: np.ndarray) -> Path:
    (folder / "raw").write_bytes(bytes(HEADER) + vectors_nd.tobytes())
    (folder / "records").write_text("".join(f'{{"text": "text {n}", "é": {n}}}\n' for n in range(len(vectors_nd))))
    raw = RawVectors(folder / "raw", *vectors_nd.shape, len(vectors_nd), records=folder / "records")
    write_index(MADE, raw, folder / "a.index")
    return folder / "a.index"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("index"), VECTORS)


def cosines(queries_qd: np.ndarray, vectors_nd: np.ndarray) -> np.ndarray:
    products = queries_qd.astype(float) @ vectors_nd.T.astype(float)
    return products / np.linalg.norm(queries_qd, axis=1)[:, None] / np.linalg.norm(vectors_nd, axis=1)


@pytest.mark.parametrize("at_once", [1 << 14, 64])
def test_exact_search_is_numpys(folder: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("bertjax.inference.vector_index._AT_ONCE", at_once)
    near_qn = cosines(QUERIES, VECTORS)
    numbers_qk, scores_qk = VectorIndex(folder).search(7 * QUERIES, 10, exact=True)
    assert numbers_qk.tolist() == np.argsort(-near_qn, axis=1)[:, :10].tolist()
    np.testing.assert_allclose(scores_qk, np.take_along_axis(near_qn, numbers_qk, axis=1), atol=1e-6)


def test_the_graph_finds_nearly_all_of_that_in_order(folder: Path) -> None:
    index = VectorIndex(folder)
    (numbers_qk, scores_qk), exact = index.search(QUERIES, 10), index.search(QUERIES, 10, exact=True)
    np.testing.assert_allclose(scores_qk, np.take_along_axis(cosines(QUERIES, VECTORS), numbers_qk, axis=1), atol=1e-6)
    assert (np.diff(scores_qk) <= 0).all() and all(len(set(row)) == 10 for row in numbers_qk.tolist())
    shared = [len({*a} & {*b}) for a, b in zip(numbers_qk.tolist(), exact.numbers_qk.tolist(), strict=True)]
    assert np.mean(shared) > 9.4  # threads build it, each time another one
    assert index.record(numbers_qk[0, 0]) == {"text": f"text {numbers_qk[0, 0]}", "é": numbers_qk[0, 0]}


def test_recall_is_of_others_and_tells_a_graph_that_finds_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = VectorIndex(folder)
    recall = index.recall(10)
    assert 0.94 < recall.share <= 1 and (recall.top, recall.queries) == (10, 200) and recall.exact_seconds > 0
    far = Found(np.zeros((200, 11), int), np.full((200, 11), -1.0))
    monkeypatch.setattr(index, "_by_graph", lambda vectors_qd, top: far)
    assert index.recall(10).share < 0.1


def test_few_vectors_and_none(tmp_path: Path) -> None:
    for count in (0, 1, 3):
        (place := tmp_path / f"{count}").mkdir()
        index = VectorIndex(write(place, VECTORS[:count]))
        for exact in (False, True):
            found = index.search(QUERIES[:2], 10, exact=exact)
            assert [sorted(row) for row in found.numbers_qk.tolist()] == [list(range(count))] * 2
    assert index.recall().share == 1
    assert "has 1 vectors; recall is of two or more" in refusal(VectorIndex(tmp_path / "1" / "a.index").recall)
    assert "vectors of 5 numbers, and" in refusal(index.search, np.ones((1, 5), np.float32), 3)


def test_vectors_of_zeros_and_equal_ones(tmp_path: Path) -> None:
    index = VectorIndex(write(tmp_path, np.repeat(np.float32([[0, 0, 0], [1, 2, 3]]), (10, 20), axis=0)))
    found = index.search(np.ones((1, 3), np.float32), 5, exact=True)
    assert {*range(10, 30)} > {*found.numbers_qk[0].tolist()} and index.recall(3).share == 1


def changed(**those: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        about = json.loads((folder / "index.json").read_text()) | those
        (folder / "index.json").write_text(json.dumps(about))

    return change


@pytest.mark.parametrize(
    "damage, told",
    [
        (lambda folder: os.truncate(folder / "graph.usearch", 900), "graph.usearch is not as it was written; make the"),
        (lambda folder: os.truncate(folder / "vectors.npy", 9000), "vectors.npy is not as it was written"),
        (lambda folder: os.truncate(folder / "records.jsonl", 90), "records.jsonl is not as it was written"),
        (lambda folder: (folder / "offsets.npy").unlink(), "offsets.npy is not as it was written"),
        (lambda folder: (folder / "offsets.npy").write_bytes(b""), "offsets.npy is not as it was written"),
        (lambda folder: (folder / "index.json").unlink(), "is no index: it has no index.json"),
        (lambda folder: (folder / "index.json").write_text("[]"), "index.json is not as it was written"),
        (lambda folder: (folder / "index.json").write_text("[" * 10**5), "index.json is not as it was written"),
        (changed(format=2), "is an index of format 2, and 1 is read; make it again"),
        (changed(size=23), "vectors.npy is not as it was written"),
        (changed(size="24"), "index.json is not as it was written"),
        (changed(columns=[1]), "index.json is not as it was written"),
        (changed(pooling=3), "index.json is not as it was written"),
        (changed(more=3), "index.json is not as it was written"),
        (changed(num_vectors=-1), "index.json is not as it was written"),
        (shutil.rmtree, "is no index; give a folder that 'bertjax encode --out NAME.index' made"),
        (lambda folder: folder.rename(f"{folder}.partial"), "is not finished ("),
    ],
    ids=range(17),
)
def test_what_is_not_whole(folder: Path, tmp_path: Path, damage: Callable[[Path], object], told: str) -> None:
    copy = tmp_path / "b.index"
    shutil.copytree(folder, copy)
    damage(copy)
    assert told in refusal(VectorIndex, copy)


def test_a_graph_of_others(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "b.index"
    shutil.copytree(folder, copy)
    graph = bytearray((copy / "graph.usearch").read_bytes())
    for damaged in (bytes(len(graph)), b"x" + bytes(graph[1:]), bytes(reversed(graph))):
        (copy / "graph.usearch").write_bytes(damaged)
        index = VectorIndex(copy)
        assert "graph.usearch is not as it was written" in refusal(index.search, QUERIES, 3)
        assert index.search(QUERIES, 3, exact=True).numbers_qk.shape == (20, 3)


def test_a_kill_while_the_graph_is_made_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(index_files, "build_graph", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        write(tmp_path, VECTORS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "records"]
    assert VectorIndex(write(tmp_path, VECTORS)).search(QUERIES, 1).numbers_qk.shape == (20, 1)


def test_without_usearch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    assert "usearch, which is not installed: pip install 'bertjax[search]'" in refusal(check_usearch)
    index = VectorIndex(folder)
    assert "pip install 'bertjax[search]', or give --exact" in refusal(index.search, QUERIES, 3)
    assert len(index.search(QUERIES, 3, exact=True).numbers_qk) == 20
