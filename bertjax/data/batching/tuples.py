"""Batches of tuples of texts as a pure function of (examples, settings, seed, step), packed into rows of one shape.

The examples are sorted into as many cells as a batch has examples, by the lengths of their texts: those of a cell are
alike. A batch takes one of each cell, at random, so that every batch has its share of all lengths. How many texts of a
batch can be longer than so many tokens is then known beforehand: the longest text fits in one place, the second longest
in another, and any batch fits in the same places of the same rows. XLA compiles once.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bertjax.data.batching.epochs import ExactEpochs
from bertjax.data.batching.packed import places_for
from bertjax.data.batching.random import random_bits
from bertjax.data.tuples import Tuples

_DEAL = 0  # a stream of random numbers


class TupleBatch(NamedTuple):
    """b rows of t tokens with k sequences at most, each a text of one of the batch's examples of r texts.

    The first fields are of rows. The last ones are of examples, of which row 0 has the first q, row 1 the next, and so
    on, whichever rows their texts are in. Numpy arrays of int32, but for scores and weights; padding is 0 in every
    field.
    """

    tokens_bt: np.ndarray
    segments_bt: np.ndarray
    positions_bt: np.ndarray
    sequences_bt: np.ndarray  # which of the row's sequences a token belongs to, from 1 on
    texts_bk: np.ndarray  # each sequence's place among all examples' texts, example by example, from 1 on
    kinds_bqr: np.ndarray  # a number for texts that read the same, from 1 on; 0 where an example has none
    scores_bq: np.ndarray  # float32
    weights_bq: np.ndarray  # float32, 1 where there is an example


class TupleBatches(ExactEpochs[TupleBatch]):
    """Tuples of texts in batches; every epoch takes each once, in a new order.

    Where `batch_size` does not divide their number, an epoch's last batch has what is left.

    Args:
      examples: one at least.
      batch_size: examples in a batch, where there are as many.
      row_length: tokens that a row has at most; by default twice the longest text. Rows are made as short as is no
        waste.
      seed: of the orders, below 2**32.

    Attributes:
      num_rows, row_length, max_sequences: b, t and k of every batch.
    """

    def __init__(self, examples: Tuples, *, batch_size: int, row_length: int | None = None, seed: int):
        super().__init__(len(examples.texts_nr), batch_size)
        self._examples, self._seed = examples, seed
        # Those that have one more, spread evenly, give it to the last batch.
        of_cells_c = np.diff(np.arange(self.batch_size + 1) * self.num_sequences // self.batch_size)
        lengths_nr = np.where(examples.texts_nr >= 0, examples.lengths_m[examples.texts_nr], 0)
        self._cells = _cells(-np.sort(-lengths_nr, axis=1), of_cells_c)
        longest_s = _longest(lengths_nr, self._cells)
        self._places, self.row_length = places_for(longest_s, row_length or 2 * int(longest_s[0]))
        self.num_rows, self.max_sequences = self._places.num_rows, int(self._places.slot_n.max()) + 1

    @property
    def fill(self) -> float:
        """Share of the rows' places that hold a token."""
        there_nr = self._examples.texts_nr
        tokens = self._examples.lengths_m[there_nr[there_nr >= 0]].sum()
        return float(tokens / (self.steps_in_epoch * self.num_rows * self.row_length))

    def batch_at(self, step: int, rows: range | None = None) -> TupleBatch:
        """See `ExactEpochs`."""
        return self._batch(self._chosen(step), rows)

    def numbers_at(self, step: int) -> np.ndarray:
        """Returns the numbers of the examples in the batch of a step, int [n], in the order in which it has them."""
        return self._chosen(step)

    def _order(self, epoch: int) -> np.ndarray:
        """Returns the examples of an epoch, batch after batch."""
        cell_n = np.concatenate([np.full(len(cell), number) for number, cell in enumerate(self._cells)])
        order_n = np.concatenate(self._cells)
        drawn_n = random_bits(self._seed, epoch, _DEAL, np.arange(len(order_n)))
        order_n = order_n[np.lexsort((drawn_n, cell_n))]
        # Of each cell the first goes to the first batch, and so on.
        starts_c = np.searchsorted(cell_n, np.arange(self.batch_size))
        return order_n[np.argsort(np.arange(len(order_n)) - starts_c[cell_n], kind="stable")]

    def _batch(self, chosen_n: np.ndarray, rows: range | None) -> TupleBatch:
        """Lays out examples, one of a cell at most."""
        rows, examples = range(self.num_rows) if rows is None else rows, self._examples
        texts_nr = examples.texts_nr[chosen_n]
        n, r = texts_nr.shape
        place_s = np.flatnonzero(texts_nr.ravel() >= 0)
        place_s = place_s[np.argsort(-examples.lengths_m[texts_nr.ravel()[place_s]], kind="stable")]
        places = self._places.take(slice(len(place_s)))
        here = (places.row_n >= rows.start) & (places.row_n < rows.stop)
        place_s, (row_s, offset_s, slot_s) = place_s[here], places.take(here)
        row_s, texts_s = row_s - rows.start, texts_nr.ravel()[place_s]
        sizes_s = examples.lengths_m[texts_s]
        # For each token m of the texts, one after the other, its number inside its own.
        within_m = np.arange(sizes_s.sum()) - np.repeat(np.cumsum(sizes_s) - sizes_s, sizes_s)
        at_m = np.repeat(row_s * self.row_length + offset_s, sizes_s) + within_m

        def tokens_bt(values_m: np.ndarray | int) -> np.ndarray:
            array = np.zeros(len(rows) * self.row_length, np.int32)
            array[at_m] = values_m
            return array.reshape(len(rows), self.row_length)

        texts_bk = np.zeros((len(rows), self.max_sequences), np.int32)
        texts_bk[row_s, slot_s] = place_s + 1
        q = -(-self.batch_size // self.num_rows)

        def examples_bq(values_n: np.ndarray) -> np.ndarray:
            array = np.zeros((max(self.num_rows, rows.stop) * q, *values_n.shape[1:]), values_n.dtype)
            array[:n] = values_n
            return array[rows.start * q : rows.stop * q].reshape(len(rows), q, *values_n.shape[1:])

        return TupleBatch(
            tokens_bt(examples.ids[np.repeat(examples.starts_m[texts_s], sizes_s) + within_m]),
            tokens_bt(0),
            tokens_bt(within_m),
            tokens_bt(np.repeat(slot_s + 1, sizes_s)),
            texts_bk,
            examples_bq((texts_nr + 1).astype(np.int32)),
            examples_bq(examples.scores_n[chosen_n]),
            examples_bq(np.ones(n, np.float32)),
        )


def _cells(sorted_nr: np.ndarray, sizes_c: np.ndarray) -> list[np.ndarray]:
    """Returns numbers of examples, in cells of these sizes; those of a cell are about as long, text for text.

    The examples are cut by their longest text, each part by the second longest, and so on.

    Args:
      sorted_nr: lengths of each example's texts, falling.
    """
    n, r = sorted_nr.shape

    def cut(numbers: np.ndarray, sizes: np.ndarray, column: int) -> Iterator[np.ndarray]:
        # Later columns settle which of equals come first, so that the file's order never does.
        order = numbers[np.lexsort((*-sorted_nr[numbers].T[::-1], -sorted_nr[numbers, column]))]
        parts = len(sizes) if column == r - 1 else round(len(sizes) ** (1 / (r - column)))
        start = 0
        for some in np.array_split(sizes, max(1, parts)):
            inside = order[start : start + some.sum()]
            start += some.sum()
            yield from ([inside] if len(some) == 1 else cut(inside, some, column + 1))

    return list(cut(np.arange(n), sizes_c, 0))


def _longest(lengths_nr: np.ndarray, cells: list[np.ndarray]) -> np.ndarray:
    """Returns, falling, what the longest text of a batch has at most, the second longest, and so on.

    So many texts have l tokens or more as the sum over the cells of the most that one of their examples has.
    """
    most_l = np.zeros(int(lengths_nr.max()) + 2, np.int64)
    for cell in cells:
        # The j-th longest text of any example of the cell is at most so long.
        for length in (-np.sort(-lengths_nr[cell], axis=1)).max(0):
            most_l[length] += 1
    most_l[0] = 0  # there is none
    return np.repeat(np.arange(len(most_l))[::-1], most_l[::-1])
