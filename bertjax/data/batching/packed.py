"""Batches of sequences as a pure function of (examples, settings, seed, step), packed into rows of one shape.

An epoch's examples, sorted by length, are cut into as many groups as a batch has examples. A batch takes one of each
group, at random. So every batch has its share of all lengths, and as the longest of each group fit in some rows
together, any batch fits in the same places of the same rows: XLA compiles once, and nothing is packed anew.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from bertjax.data.batching.epochs import B, ExactEpochs
from bertjax.data.batching.packing import Placement, pack
from bertjax.data.batching.random import random_bits

# Streams of random numbers: among equal lengths, of the last batch, to the others, and to which of those in turn.
_ORDER, _LAST, _DEAL, _TURN = range(4)
_NEAR = 1.03  # what is about as small counts as smallest: a token in a row of 150 costs 7% more than in one of 64
_MULTIPLE = 8  # of a row's length, which devices like


class Sequences(Protocol):
    """n sequences of tokens."""

    @property
    def ids(self) -> np.ndarray:
        """Tokens of all, one sequence after the other, int32."""

    @property
    def starts_n(self) -> np.ndarray:
        """Where each begins in them, and at last where the last one ends."""

    @property
    def lengths_n(self) -> np.ndarray:
        """Number of tokens of each."""

    @property
    def len_a_n(self) -> np.ndarray:
        """Number of tokens of the first segment of each."""


class Layout(NamedTuple):
    """Some rows of a batch: n sequences, m tokens in all, and where in b rows of t tokens they are."""

    inputs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    """Tokens, segments, positions, and from 1 on which of the row's sequences a token belongs to, int32 [b, t]; 0 is
    padding."""
    numbers_n: np.ndarray  # of the sequences, among all
    offset_n: np.ndarray  # place in its row of each one's first token
    tokens_m: np.ndarray  # number of each token, among those of all sequences
    on_tokens: Callable[[np.ndarray], np.ndarray]  # puts values [m] to their places [b, t]; 0 elsewhere
    on_sequences: Callable[[np.ndarray], np.ndarray]  # puts values [n, ...] to places [b, k, ...] likewise


class PackedBatches(ExactEpochs[B]):
    """Sequences in batches; every epoch takes each once, in a new order. What is learned of them is a subclass's.

    Where `batch_size` does not divide their number, an epoch's last batch has what is left.

    Args:
      examples: one at least.
      batch_size: sequences in a batch, where there are as many.
      row_length: tokens that a row has at most; by default twice the longest sequence. Rows are made as short as is
        no waste.
      seed: of the orders, below 2**32.
      kinds_n: the number of each example's kind, if every batch is to have its share of all kinds too.

    Attributes:
      num_rows, row_length, max_sequences: b, t and k of every batch.
    """

    def __init__(
        self,
        examples: Sequences,
        *,
        batch_size: int,
        row_length: int | None = None,
        seed: int,
        kinds_n: np.ndarray | None = None,
    ):
        super().__init__(len(examples.starts_n) - 1, batch_size)
        self._sequences, self._seed, self._kinds_n = examples, seed, kinds_n
        # Whichever examples the last batch takes, the longest of group g is among the longest of what is left.
        longest_n = np.sort(examples.lengths_n)[::-1][np.arange(self.batch_size) * self._whole]
        self._places, self.row_length = places_for(longest_n, row_length or 2 * int(longest_n[0]))
        self.num_rows, self.max_sequences = self._places.num_rows, int(self._places.slot_n.max()) + 1

    @property
    def fill(self) -> float:
        """Share of the rows' places that hold a token."""
        places = self.steps_in_epoch * self.num_rows * self.row_length
        return float(self._sequences.starts_n[-1] / places)

    def batch_at(self, step: int, rows: range | None = None) -> B:
        """See `ExactEpochs`."""
        return self._made(self._laid_out(self._chosen(step), rows))

    def numbers_at(self, step: int) -> np.ndarray:
        """Returns the number of each example in the batch of a step, int [b, k], -1 where there is none."""
        layout = self._laid_out(self._chosen(step), None)
        return layout.on_sequences(layout.numbers_n + 1) - 1

    def tokens_at(self, step: int) -> np.ndarray:
        """Returns the number of each token in the batch of a step among those of all, int [b, t]; -1 at padding."""
        layout = self._laid_out(self._chosen(step), None)
        return layout.on_tokens(layout.tokens_m + 1) - 1

    def _order(self, epoch: int) -> np.ndarray:
        """Returns the examples of an epoch, batch after batch; each is in order of its groups, the longest first."""
        lengths_n = self._sequences.lengths_n

        def random(stream: int, shape: tuple[int, ...]) -> np.ndarray:
            return random_bits(self._seed, epoch, stream, np.arange(np.prod(shape))).reshape(shape)

        order_n = np.lexsort((random(_ORDER, lengths_n.shape), -lengths_n))
        # The last batch takes one of each of its own groups too: it has its share of all lengths.
        bounds = np.arange(self._left + 1) * self.num_sequences // max(1, self._left)
        drawn = random(_LAST, (self._left,)) >> np.uint64(32)
        last = bounds[:-1] + ((drawn * np.diff(bounds).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
        of_groups_gs = np.delete(order_n, last).reshape(self.batch_size, self._whole)
        drawn_gs = random(_DEAL, of_groups_gs.shape)
        if self._kinds_n is None:
            dealt_gs = np.argsort(drawn_gs, axis=1, kind="stable")
        else:
            dealt_gs = deal_evenly(self._kinds_n[of_groups_gs], drawn_gs, random(_TURN, of_groups_gs.shape))
        return np.concatenate((np.take_along_axis(of_groups_gs, dealt_gs, axis=1).T.ravel(), order_n[last]))

    def _made(self, layout: Layout) -> B:
        """Returns the batch of a layout."""
        raise NotImplementedError

    def _laid_out(self, chosen_n: np.ndarray, rows: range | None) -> Layout:
        """Lays out examples, the longest of which is no longer than the longest of the first group, and so on."""
        rows = range(self.num_rows) if rows is None else rows
        places, sequences = self._places.take(slice(len(chosen_n))), self._sequences
        here = (places.row_n >= rows.start) & (places.row_n < rows.stop)
        chosen_n, (row_n, offset_n, slot_n) = chosen_n[here], places.take(here)
        row_n = row_n - rows.start
        sizes_n = sequences.lengths_n[chosen_n]
        # For each token m of the examples, one after the other, its number inside its own.
        within_m = np.arange(sizes_n.sum()) - np.repeat(np.cumsum(sizes_n) - sizes_n, sizes_n)
        place_m = np.repeat(row_n * self.row_length + offset_n, sizes_n) + within_m
        tokens_m = np.repeat(sequences.starts_n[chosen_n], sizes_n) + within_m

        def on_tokens(values_m: np.ndarray) -> np.ndarray:
            array: np.ndarray = np.zeros(len(rows) * self.row_length, values_m.dtype)
            array[place_m] = values_m
            return array.reshape(len(rows), self.row_length)

        def on_sequences(values_n: np.ndarray) -> np.ndarray:
            array: np.ndarray = np.zeros((len(rows), self.max_sequences, *values_n.shape[1:]), values_n.dtype)
            array[row_n, slot_n] = values_n
            return array

        inputs_m = (
            sequences.ids[tokens_m],
            within_m >= np.repeat(sequences.len_a_n[chosen_n], sizes_n),
            within_m,
            np.repeat(slot_n + 1, sizes_n),
        )
        tokens_bt, segments_bt, positions_bt, sequences_bt = (on_tokens(x_m.astype(np.int32)) for x_m in inputs_m)
        inputs = (tokens_bt, segments_bt, positions_bt, sequences_bt)
        return Layout(inputs, chosen_n, offset_n, tokens_m, on_tokens, on_sequences)


def deal_evenly(kinds_gs: np.ndarray, drawn_gs: np.ndarray, turns_gs: np.ndarray) -> np.ndarray:
    """Returns which member of each group each of s batches takes, int [g, s], so that kinds are spread over batches.

    Those of a kind, the rarest kind first, go to batches that have the fewest of it so far: of the rarest none has more
    than one above another. Chance decides which member, and between batches that have as many.

    Args:
      kinds_gs: the kind of each member.
      drawn_gs, turns_gs: random numbers, of members and of batches.
    """
    kinds, counts = np.unique(kinds_gs, return_counts=True)
    num_batches = kinds_gs.shape[1]
    there_ks = np.zeros((len(kinds), num_batches), int)
    dealt_gs = np.zeros(kinds_gs.shape, int)
    for group, (kinds_s, drawn_s, turns_s) in enumerate(zip(kinds_gs, drawn_gs, turns_gs, strict=True)):
        free = np.arange(num_batches)
        here = np.searchsorted(kinds, np.unique(kinds_s))
        for kind in here[np.argsort(counts[here], kind="stable")]:
            members = np.flatnonzero(kinds_s == kinds[kind])
            chosen = free[np.lexsort((turns_s[free], there_ks[kind, free]))[: len(members)]]
            dealt_gs[group, chosen] = members[np.argsort(drawn_s[members], kind="stable")]
            there_ks[kind, chosen] += 1
            free = np.setdiff1d(free, chosen, assume_unique=True)
    return dealt_gs


def places_for(longest_n: np.ndarray, row_length: int) -> tuple[Placement, int]:
    """Returns places for sequences that are at most so long, and the length of a row.

    Of all lengths of rows, that with the fewest places in all is taken, or a shorter one with hardly more: short rows
    are quick to attend over.

    Args:
      longest_n: tokens, falling.
      row_length: tokens of a row at most, unless one sequence alone has more.
    """
    shortest, most = (-(-int(tokens) // _MULTIPLE) * _MULTIPLE for tokens in (longest_n[0], row_length))
    packed: dict[int, Placement] = {}  # by length, of which the shortest comes first
    for length in range(shortest, max(shortest, most) + 1, _MULTIPLE):
        packed[length] = pack(longest_n, row_length=length, max_sequences=len(longest_n), slack=0)
    sizes = {length: places.num_rows * length for length, places in packed.items()}
    length = next(length for length, size in sizes.items() if size <= _NEAR * min(sizes.values()))
    return packed[length], length
