"""Epochs that take each example exactly once, in batches of one shape; the last batch has what is left."""

from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np

B = TypeVar("B")


class ExactEpochs(Generic[B]):
    """The part of a `BatchStream` that all batches of examples share. Subclasses order an epoch, and make batches.

    Args:
      num_sequences: examples, one at least.
      batch_size: examples in a batch, where there are as many.

    Attributes:
      num_rows: b of every batch; a subclass's.
    """

    num_rows: int

    def __init__(self, num_sequences: int, batch_size: int):
        self.num_sequences, self.batch_size = num_sequences, min(batch_size, num_sequences)
        self._whole, self._left = divmod(num_sequences, self.batch_size)
        self.steps_in_epoch = self._whole + (self._left > 0)
        self._epoch: tuple[int, np.ndarray] | None = None

    def batch_at(self, step: int, rows: range | None = None) -> B:
        """Returns the batch of a step; epochs follow one another.

        Args:
          rows: consecutive ones to make, the others are not; those from `num_rows` on are empty. By default all.
        """
        raise NotImplementedError

    def num_rows_at(self, step: int) -> int:
        """Returns the number of rows (b), the same in every step."""
        return self.num_rows

    def batch_size_at(self, step: int) -> float:
        """Returns the number of examples in a step."""
        is_last = self._left and step % self.steps_in_epoch == self._whole
        return self._left if is_last else self.batch_size

    def first_epoch(self, rows: range | None = None) -> Iterator[B]:
        """Yields each example once, or some consecutive rows of each batch."""
        return (self.batch_at(step, rows) for step in range(self.steps_in_epoch))

    def _chosen(self, step: int) -> np.ndarray:
        """Returns the numbers of a step's examples, int [n]."""
        epoch, number = divmod(step, self.steps_in_epoch)
        last = self._epoch  # read once: another thread may ask for another one meanwhile
        if last is None or last[0] != epoch:  # steps mostly come in order
            self._epoch = last = epoch, self._order(epoch)
        return last[1][number * self.batch_size :][: self.batch_size]

    def _order(self, epoch: int) -> np.ndarray:
        """Returns the numbers of all examples in the order of an epoch, batch after batch."""
        raise NotImplementedError
