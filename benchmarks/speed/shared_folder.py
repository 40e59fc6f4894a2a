"""Files that contenders in encoding share: texts, vocabulary, weights, vectors."""

from pathlib import Path
from typing import Any

import numpy as np

from bertjax.data.prepare import Prepared


class SharedFolder:
    """Files that the first contender writes and the others read."""

    def __init__(self, folder: str | Path):
        self.path = Path(folder)
        self.tokenizer, self.exported = self.path / "tokenizer.json", self.path / "exported"
        self.onnx = self.path / "model.onnx"
        self._lengths = self.path / "lengths.npy"
        self._texts, self._weights = self.path / "texts.txt", self.path / "weights.npz"

    def write_texts(self, prepared: Prepared, count: int) -> None:
        """Writes sentences at equal distances through the corpus, and the vocabulary."""
        corpus = prepared.train
        chosen = np.linspace(0, len(corpus.sentences) - 2, count).astype(int)
        bounds = [(corpus.sentences[i], corpus.sentences[i + 1]) for i in chosen]
        lines = (" ".join(prepared.tokenizer.tokens(corpus.ids[start:stop])) for start, stop in bounds)
        whole_words = "\n".join(lines).replace(" ##", "")
        self._texts.write_text(whole_words, encoding="utf-8")
        np.save(self._lengths, np.array([2 + stop - start for start, stop in bounds]))
        self.tokenizer.write_text(prepared.tokenizer.to_json(), encoding="utf-8")

    def texts(self) -> list[str]:
        return self._texts.read_text(encoding="utf-8").split("\n")

    def lengths(self) -> np.ndarray:
        """Returns the tokens of each text, <cls> and <sep> included."""
        return np.load(self._lengths)

    def write_weights(self, params: dict[str, Any]) -> None:
        np.savez(self._weights, **_flat(params))

    def weights(self) -> dict[str, np.ndarray]:
        """Returns each array by its path, such as `block_0/attention/query/kernel`."""
        with np.load(self._weights) as arrays:
            return dict(arrays)

    def write_vectors(self, contender: str, vectors: np.ndarray) -> None:
        np.save(self.path / f"{contender}.npy", vectors)

    def least_cosine(self, contender: str, other: str) -> float:
        """Returns the least cosine of two contenders' vectors of the same text."""
        x, y = (np.load(self.path / f"{name}.npy").astype(np.float64) for name in (contender, other))
        return float(((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).min())


def nested(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns dicts in dicts for arrays by their paths."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        arrays |= _flat(value, f"{path}/") if isinstance(value, dict) else {path: np.asarray(value)}
    return arrays
