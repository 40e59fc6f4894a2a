"""Batches of labelled sequences as a pure function of (examples, settings, seed, step), packed into rows of one shape.

An epoch's examples, sorted by length, are cut into as many groups as a batch has examples. A batch takes one of each
group, at random. So every batch has its share of all lengths, and as the longest of each group fit in some rows
together, any batch fits in the same places of the same rows: XLA compiles once, and nothing is packed anew.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bertjax.data.batching.packing import Placement, spread
from bertjax.data.batching.random import random_bits
from bertjax.data.examples import Examples

_ORDER, _LAST, _DEAL = range(3)  # streams of random numbers: among equal lengths, of the last batch, to the others
_NEAR = 1.02  # what is about as small counts as smallest
_MULTIPLE = 8  # of a row's length, which devices like


class LabelledBatch(NamedTuple):
    """b rows of t tokens with k sequences at most, each with a label; padding is 0 in every field.

    Numpy arrays of int32, but for the weights, and labels that are numbers or several.
    """

    tokens_bt: np.ndarray
    segments_bt: np.ndarray
    positions_bt: np.ndarray
    sequences_bt: np.ndarray  # which of the row's sequences a token belongs to, from 1 on
    cls_positions_bk: np.ndarray  # places in the row of the sequences' first tokens
    labels_bk: np.ndarray  # int32 or float32 [b, k], or float32 [b, k, c]
    weights_bk: np.ndarray  # float32, 1 where there is a sequence


class LabelledBatches:
    """Labelled sequences in batches; every epoch takes each once, in a new order.

    Where `batch_size` does not divide their number, an epoch's last batch has what is left.

    Args:
      examples: one at least.
      batch_size: sequences in a batch, where there are as many.
      row_length: tokens that a row has at most; by default twice the longest sequence. Rows are made as short as is
        no waste.
      seed: of the orders, below 2**32.

    Attributes:
      num_rows, row_length, max_sequences: b, t and k of every batch.
    """

    def __init__(self, examples: Examples, *, batch_size: int, row_length: int | None = None, seed: int):
        self._examples, self._seed = examples, seed
        self.num_sequences = len(examples.labels_n)
        self.batch_size = min(batch_size, self.num_sequences)
        self._whole, self._left = divmod(self.num_sequences, self.batch_size)
        self.steps_in_epoch = self._whole + (self._left > 0)
        # Whichever examples the last batch takes, the longest of group g is among the longest of what is left.
        longest_n = np.sort(examples.lengths_n)[::-1][np.arange(self.batch_size) * self._whole]
        self._places, self.row_length = places_for(longest_n, row_length or 2 * int(longest_n[0]))
        self.num_rows, self.max_sequences = self._places.num_rows, int(self._places.slot_n.max()) + 1
        self._epoch: tuple[int, np.ndarray] | None = None

    @property
    def fill(self) -> float:
        """Share of the rows' places that hold a token."""
        places = self.steps_in_epoch * self.num_rows * self.row_length
        return float(self._examples.starts_n[-1] / places)

    def batch_at(self, step: int, rows: range | None = None) -> LabelledBatch:
        """Returns the batch of a step; epochs follow one another.

        Args:
          rows: consecutive ones to make, the others are not; those from `num_rows` on are empty. By default all.
        """
        return self._batch(self._chosen(step), rows)

    def numbers_at(self, step: int) -> np.ndarray:
        """Returns the number of each example in the batch of a step, int [b, k], -1 where there is none."""
        chosen_n = self._chosen(step)
        places = self._places.take(slice(len(chosen_n)))
        numbers_bk = np.full((self.num_rows, self.max_sequences), -1)
        numbers_bk[places.row_n, places.slot_n] = chosen_n
        return numbers_bk

    def _chosen(self, step: int) -> np.ndarray:
        epoch, number = divmod(step, self.steps_in_epoch)
        if self._epoch is None or self._epoch[0] != epoch:  # steps mostly come in order
            self._epoch = epoch, self._order(epoch)
        return self._epoch[1][number * self.batch_size :][: self.batch_size]

    def num_rows_at(self, step: int) -> int:
        """Returns the number of rows (b), the same in every step."""
        return self.num_rows

    def batch_size_at(self, step: int) -> float:
        """Returns the number of sequences in a step."""
        is_last = self._left and step % self.steps_in_epoch == self._whole
        return self._left if is_last else self.batch_size

    def first_epoch(self, rows: range | None = None) -> Iterator[LabelledBatch]:
        """Yields each sequence once, or some consecutive rows of each batch."""
        return (self.batch_at(step, rows) for step in range(self.steps_in_epoch))

    def _order(self, epoch: int) -> np.ndarray:
        """Returns the examples of an epoch, batch after batch; each is in order of its groups, the longest first."""
        lengths_n = self._examples.lengths_n

        def random(stream: int, shape: tuple[int, ...]) -> np.ndarray:
            return random_bits(self._seed, epoch, stream, np.arange(np.prod(shape))).reshape(shape)

        order_n = np.lexsort((random(_ORDER, lengths_n.shape), -lengths_n))
        # The last batch takes one of each of its own groups too: it has its share of all lengths.
        bounds = np.arange(self._left + 1) * self.num_sequences // max(1, self._left)
        drawn = random(_LAST, (self._left,)) >> np.uint64(32)
        last = bounds[:-1] + ((drawn * np.diff(bounds).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
        of_groups_gs = np.delete(order_n, last).reshape(self.batch_size, self._whole)
        dealt_gs = np.argsort(random(_DEAL, of_groups_gs.shape), axis=1, kind="stable")
        return np.concatenate((np.take_along_axis(of_groups_gs, dealt_gs, axis=1).T.ravel(), order_n[last]))

    def _batch(self, chosen_n: np.ndarray, rows: range | None) -> LabelledBatch:
        """Lays out examples, the longest of which is no longer than the longest of the first group, and so on."""
        rows = range(self.num_rows) if rows is None else rows
        places, examples = self._places.take(slice(len(chosen_n))), self._examples
        here = (places.row_n >= rows.start) & (places.row_n < rows.stop)
        chosen_n, (row_n, offset_n, slot_n) = chosen_n[here], places.take(here)
        row_n = row_n - rows.start
        sizes_n = examples.lengths_n[chosen_n]
        # For each token m of the examples, one after the other, its number inside its own.
        within_m = np.arange(sizes_n.sum()) - np.repeat(np.cumsum(sizes_n) - sizes_n, sizes_n)
        place_m = np.repeat(row_n * self.row_length + offset_n, sizes_n) + within_m

        def tokens_bt(values_m: np.ndarray) -> np.ndarray:
            array = np.zeros(len(rows) * self.row_length, np.int32)
            array[place_m] = values_m
            return array.reshape(len(rows), self.row_length)

        def sequences_bk(values_n: np.ndarray) -> np.ndarray:
            array: np.ndarray = np.zeros((len(rows), self.max_sequences, *values_n.shape[1:]), values_n.dtype)
            array[row_n, slot_n] = values_n
            return array

        return LabelledBatch(
            tokens_bt(examples.ids[np.repeat(examples.starts_n[chosen_n], sizes_n) + within_m]),
            tokens_bt(within_m >= np.repeat(examples.len_a_n[chosen_n], sizes_n)),
            tokens_bt(within_m),
            tokens_bt(np.repeat(slot_n + 1, sizes_n)),
            sequences_bk(offset_n.astype(np.int32)),
            sequences_bk(examples.labels_n[chosen_n]),
            sequences_bk(np.ones(len(chosen_n), np.float32)),
        )


def places_for(longest_n: np.ndarray, row_length: int) -> tuple[Placement, int]:
    """Returns places for sequences that are at most so long, and the length of a row.

    Of all numbers of rows, that with the fewest places in all is taken, or a greater one with hardly more: short rows
    are quick to attend over.

    Args:
      longest_n: tokens, falling.
      row_length: tokens of a row at most, unless one sequence alone has more.
    """
    most, best = max(row_length, int(longest_n[0])), {}
    for num_rows in range(max(1, int(longest_n.sum()) // most), len(longest_n) + 1):
        places = spread(longest_n, num_rows=num_rows)
        needed = -(-int((places.offset_n + longest_n).max()) // _MULTIPLE) * _MULTIPLE
        if needed <= -(-most // _MULTIPLE) * _MULTIPLE:
            best[num_rows] = places, needed
    least = min(num_rows * length for num_rows, (_, length) in best.items())
    return best[max(num_rows for num_rows, (_, length) in best.items() if num_rows * length <= _NEAR * least)]
