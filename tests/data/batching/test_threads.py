"""A batch is the same whoever asks for another one meanwhile: the next is made in a thread."""

from typing import Any

import jax
import numpy as np

from bertjax.data.batching.epochs import ExactEpochs
from bertjax.data.prepare import Prepared


class Shuffled(ExactEpochs[np.ndarray]):
    """Numbers in a random order of each epoch."""

    def batch_at(self, step: int, rows: range | None = None) -> np.ndarray:
        return self._chosen(step)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(epoch).permutation(self.num_sequences)


def asked_in_between(batches: Any, kept: str, step: int, other: int) -> Any:
    """Returns a step's batch, for which another thread seems to want another the moment something has been kept."""
    asked: list[str] = []

    class Watched(type(batches)):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == kept and not asked:
                asked.append(name)
                self.batch_at(other)

    batches.__class__ = Watched
    found = batches.batch_at(step)
    assert asked
    return found


def test_pairs(prepared: Prepared) -> None:
    batches, step, other = prepared.train_batches, 40_000, 20_000
    alone = jax.tree.map(np.array, batches.batch_at(step))
    batches.batch_at(other)
    jax.tree.map(np.testing.assert_array_equal, asked_in_between(batches, "_last", step, other), alone)


def test_examples() -> None:
    batches = Shuffled(100, 10)
    alone = batches.batch_at(30)
    batches.batch_at(0)
    np.testing.assert_array_equal(asked_in_between(batches, "_epoch", 30, 0), alone)
