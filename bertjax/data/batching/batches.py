"""Batches as a pure function of (corpus, settings, seed, step): sequences of sentences, laid out, masked and packed.

Every random choice is a hash of the seed, the sequence's number and what is chosen. So nothing is kept between steps,
and a sequence is the same whatever the batch size, the number of devices, and those that it shares a row with.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from bertjax.data.batching.batch import Batch
from bertjax.data.batching.masking import mask_tokens, most_to_predict, num_to_predict
from bertjax.data.batching.packing import Placement, into_rows, most_in_a_row, pack, spread
from bertjax.data.batching.pairs import PairStream, to_be_changed
from bertjax.data.batching.passages import PassageStream
from bertjax.data.batching.random import random_bits
from bertjax.data.batching.sequences import Sequences, lay_out
from bertjax.data.batching.shares import MOST_PARTS, share_at
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.tokenizer.rules import Vocabulary

Half = Literal["even", "odd"]  # of the sequences, by their numbers


_AT_ONCE = 8192  # sequences drawn and packed together; also enough to tell how long they are
_DEAL = 4  # the stream of random numbers that deals rows to steps; sequences and masks have others


class _Window(NamedTuple):
    """The sequences of some consecutive steps, in the order of their rows."""

    sequences: Sequences
    placement: Placement  # rows are counted from the window's first
    bounds: list[int]  # where each step's sequences begin, and the last one's end


class Batches:
    """Pairs of sentences or passages of a paragraph, one sequence a row (k = 1) or several, packed.

    Every epoch takes each adjacent pair, or each passage, once, in a new order, with new strangers and new masks.

    Args:
      objective: what `PairStream` draws ("mlm+nsp", and "mlm+sop" for swapped pairs), or `PassageStream` ("mlm").
      batch_size: sequences in a step; packed in many rows, that is the mean over a window of steps.
      max_length: tokens in a sequence at most.
      row_length: tokens a row (t); above max_length, several sequences share a row. By default max_length.
      vocabulary: the tokenizer's.
      mlm_probability, mask_unit, predict_unk: as for `mask_tokens`.
      mlm_probability_end, steps: the rate of step 0 is `mlm_probability`, and from there rises or falls evenly to this
        one at the last of so many steps, after which it stays.
      warmup_steps: first ones of training, which have a share of a batch, as `share_at` has it.
      too_long: "truncate" from the longer side, or "drop" pairs, adjacent or with a stranger, that do not fit; of
        passages, single sentences.
      seed: of every choice, below 2**32.

    Attributes:
      num_rows, row_length, num_predictions, max_sequences: b, t, p and k of every whole batch.

    Raises:
      BertjaxError: the corpus has no sequence that fits, or its folder cannot be written.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        objective: Literal["mlm+nsp", "mlm+sop", "mlm"] = "mlm+nsp",
        batch_size: int,
        max_length: int,
        row_length: int | None = None,
        vocabulary: Vocabulary,
        mlm_probability: float,
        mlm_probability_end: float | None = None,
        steps: int = 1,
        warmup_steps: int = 0,
        mask_unit: Literal["token", "word", "span"] = "token",
        predict_unk: bool,
        too_long: Literal["truncate", "drop"],
        seed: int,
    ):
        self.batch_size = self.num_rows = batch_size
        self.row_length = max_length if row_length is None else row_length
        self._rates = (mlm_probability, mlm_probability if mlm_probability_end is None else mlm_probability_end)
        self._last_step, self._warmup_steps = max(1, steps - 1), warmup_steps
        self.max_sequences, self.num_predictions = 1, most_to_predict(max_length, max(self._rates))
        self._ids, self._max_length, self._seed = np.asarray(corpus.ids), max_length, seed
        self._vocabulary = vocabulary
        self._mask = functools.partial(
            mask_tokens,
            num_predictions=self.num_predictions,
            unit=mask_unit,
            predict_unk=predict_unk,
            vocabulary=vocabulary,
        )
        stream: Callable[..., PairStream | PassageStream] = PassageStream
        if objective != "mlm":
            stream = functools.partial(PairStream, swapped=objective == "mlm+sop")
        self._stream = stream(corpus, max_length=max_length, too_long=too_long, seed=seed)
        self._steps_at_once = -(-_AT_ONCE // batch_size)
        self._last: tuple[tuple[int, range | None], _Window] | None = None
        if self.packed:
            self._fix_shape()

    @property
    def packed(self) -> bool:
        """Whether several sequences share a row."""
        return self.row_length > self._max_length

    @property
    def num_sequences(self) -> int:
        """Number of pairs or passages in an epoch."""
        return self._stream.num_sequences

    @property
    def fill(self) -> float:
        """Share of the rows' places that hold a token, over the first steps."""
        tokens = self._window(0).sequences.lengths_n.sum()
        return float(tokens / (self._steps_at_once * self.num_rows * self.row_length))

    @property
    def without_stranger(self) -> float:
        """Share of the pairs for which no stranger was found, of those that were to have one, over the first steps."""
        sequences = self._window(0).sequences
        return float(sequences.is_next_n[to_be_changed(sequences.keys_n)].mean())

    def batch_at(self, step: int, rows: range | None = None) -> Batch:
        """Returns the batch of a training step; epochs follow one another without a gap.

        Args:
          rows: consecutive ones to make, the others are not; those from `num_rows_at` on are empty. By default all.
        """
        batch, share = share_at(step, self.num_rows, self._warmup_steps)
        number, step_in_window = divmod(batch, self._steps_at_once)
        return self._batch(self._window(number), step_in_window, share, rows, self.mlm_probability_at(step))

    def num_rows_at(self, step: int) -> int:
        """Returns the number of rows (b) in a training step."""
        return len(share_at(step, self.num_rows, self._warmup_steps).rows)

    def batch_size_at(self, step: int) -> float:
        """Returns the number of sequences in a training step, on average over steps that have as many rows."""
        share = share_at(step, self.num_rows, self._warmup_steps)
        return self.batch_size * len(range(self.num_rows)[share.rows.start : share.rows.stop]) / self.num_rows

    def mlm_probability_at(self, step: int) -> float:
        """Returns the share of the words that are to be predicted in a training step."""
        (start, end), done = self._rates, min(1.0, step / self._last_step)
        return start * (1 - done) + end * done  # both exact where they are reached

    def numbers(self, half: Half | None = None) -> range:
        """Returns the numbers of an epoch's sequences, or of every other one: the even ones, or the odd ones."""
        return range(self.num_sequences)[slice(half == "odd", None, 2 if half else 1)]

    def first_epoch(self, rows: range | None = None, half: Half | None = None) -> Iterator[Batch]:
        """Yields every sequence of these `numbers` once, masked as in step 0; rows left over are empty, of weight 0.

        A sequence and its masks are the same in its half and in the whole.
        """
        numbers = self.numbers(half)
        for number in range(-(-len(numbers) // (self._steps_at_once * self.batch_size))):
            window = self._window(number, numbers)
            for step in range(len(window.bounds) - 1):
                yield self._batch(window, step, range(self.num_rows), rows, self.mlm_probability_at(0))

    def _fix_shape(self) -> None:
        """Finds, from the first window, the slack that packs best, and what a row and a step hold at most."""
        lengths_n = self._draw(0).lengths_n
        self.max_sequences = math.ceil(1.5 * self.row_length / lengths_n.mean())
        slacks = range(0, self.row_length // 6, max(1, self.row_length // 64))
        num_rows, self._slack = min((self._pack(lengths_n, slack).num_rows, slack) for slack in slacks)
        # Windows differ in their total length, by more than five standard deviations hardly ever.
        spare_tokens = 5 * lengths_n.std() * len(lengths_n) ** 0.5
        steps = self._steps_at_once
        self.num_rows = math.ceil((num_rows + spare_tokens / self.row_length) / steps)
        # The last rows may have nothing: too much of a step, or of the share of one, where these have few rows.
        self._evenly = self.num_rows <= MOST_PARTS
        if self._evenly:
            self.num_rows = 1
            while not self._fits(self._place(lengths_n, steps), lengths_n, steps, spare_tokens / steps / self.num_rows):
                self.num_rows += 1
            self.max_sequences = math.ceil(self.batch_size / self.num_rows)
        words = np.arange(self._max_length + 1) - self._stream.num_special
        words[words < self._stream.num_special - 1] = 0  # no segment is without words
        self.num_predictions = most_in_a_row(
            num_to_predict(words, max(self._rates)), row_length=self.row_length, max_sequences=self.max_sequences
        )

    def _window(self, number: int, epoch: range | None = None) -> _Window:
        """Returns a window, and keeps it until the next is asked for: steps mostly come in order."""
        last = self._last  # read once: another thread may ask for another one meanwhile
        if last is None or last[0] != (number, epoch):
            self._last = last = (number, epoch), self._make_window(number, epoch)
        return last[1]

    def _make_window(self, number: int, epoch: range | None) -> _Window:
        sequences = self._draw(number, epoch)
        if not self.packed:
            place_n = np.arange(len(sequences.keys_n))
            bounds = [*range(0, len(place_n), self.batch_size), len(place_n)]
            return _Window(sequences, Placement(place_n, 0 * place_n, 0 * place_n), bounds)
        steps = self._steps_at_once if epoch is None else -(-len(sequences.keys_n) // self.batch_size)
        placement, max_length = self._place(sequences.lengths_n, steps), self._max_length
        if epoch is not None:  # which ends when it ends
            steps = -(-placement.num_rows // self.num_rows)
        while not self._fits(placement, sequences.lengths_n, steps):  # hardly ever
            if epoch is None:  # rather than a sequence, some words are lost
                max_length -= 1
                sequences = sequences.shortened(max_length)
            else:
                steps += 1
            placement = self._place(sequences.lengths_n, steps)
        placement = placement._replace(row_n=self._dealt(number, steps)[placement.row_n])
        order_n = np.argsort(placement.row_n * self.max_sequences + placement.slot_n)
        placement = placement.take(order_n)
        bounds = np.searchsorted(placement.row_n, self.num_rows * np.arange(steps + 1)).tolist()
        return _Window(sequences.take(order_n), placement, bounds)

    def _dealt(self, number: int, steps: int) -> np.ndarray:
        """Returns, for each row of a window, the place where it is computed.

        The first rows have the longest sequences and the last ones may have none. As many of them as there are steps,
        one after the other, are dealt in a random order, one to each step: all steps have their share of all lengths.
        """
        shape = (2, self.num_rows, steps)
        of_step_rs, of_place_rs = random_bits(self._seed, number, _DEAL, np.arange(math.prod(shape))).reshape(shape)
        step_rs, place_rs = np.argsort(of_step_rs, axis=1), np.argsort(of_place_rs, axis=0)
        return (step_rs * self.num_rows + np.take_along_axis(place_rs, step_rs, axis=1)).ravel()

    def _draw(self, number: int, epoch: range | None = None) -> Sequences:
        """Returns a window's sequences, of the endless stream or of an epoch."""
        size = self._steps_at_once * self.batch_size
        some = slice(number * size, (number + 1) * size)
        numbers = range(some.start, some.stop) if epoch is None else epoch[some]
        return self._stream.draw(np.arange(numbers.start, numbers.stop, numbers.step))

    def _place(self, lengths_n: np.ndarray, steps: int) -> Placement:
        """Returns places in the rows of so many steps, or beyond their ends where these are too few."""
        if self._evenly:
            return spread(lengths_n, num_rows=steps * self.num_rows)
        return self._pack(lengths_n, self._slack)

    def _fits(self, placement: Placement, lengths_n: np.ndarray, steps: int, spare: float = 0) -> bool:
        """Tells whether the rows of so many steps are enough, of which each keeps so many tokens to spare."""
        longest = (placement.offset_n + lengths_n).max() + spare
        return bool(placement.num_rows <= steps * self.num_rows and longest <= self.row_length)

    def _pack(self, lengths_n: np.ndarray, slack: int) -> Placement:
        return pack(lengths_n, row_length=self.row_length, max_sequences=self.max_sequences, slack=slack)

    def _batch(self, window: _Window, step: int, share: range, rows: range | None, mlm_probability: float) -> Batch:
        """Makes some rows of a step's share, or all."""
        rows = range(len(share)) if rows is None else rows
        first = share.start + rows.start
        row_n = window.placement.row_n[window.bounds[step] : window.bounds[step + 1]] - step * self.num_rows
        some = slice(*window.bounds[step] + np.searchsorted(row_n, [first, min(share.start + rows.stop, share.stop)]))
        sequences, placement = window.sequences.take(some), window.placement.take(some)
        batch = self._one_a_row(sequences, mlm_probability)
        if not self.packed and len(sequences.keys_n) == len(rows):
            return batch
        return into_rows(
            batch,
            sequences.lengths_n,
            placement._replace(row_n=placement.row_n - step * self.num_rows - first),
            num_rows=len(rows),
            row_length=self.row_length,
            max_sequences=self.max_sequences,
            num_predictions=self.num_predictions,
        )

    def _one_a_row(self, sequences: Sequences, mlm_probability: float) -> Batch:
        keys_n, *places, is_next_n = sequences
        tokens_nt, segments_nt, present_nt = lay_out(
            self._ids, *places, max_length=self._max_length, vocabulary=self._vocabulary
        )
        tokens_nt, mlm_positions_np, mlm_labels_np, mlm_weights_np = self._mask(
            tokens_nt, present_nt, keys_n, rate=mlm_probability
        )
        return Batch(
            tokens_bt=tokens_nt,
            segments_bt=segments_nt,
            positions_bt=np.arange(self._max_length, dtype=np.int32) * present_nt,
            sequences_bt=present_nt.astype(np.int32),
            mlm_positions_bp=mlm_positions_np,
            mlm_labels_bp=mlm_labels_np,
            mlm_weights_bp=mlm_weights_np,
            cls_positions_bk=np.zeros((len(tokens_nt), 1), np.int32),
            nsp_labels_bk=is_next_n.astype(np.int32)[:, None],
            nsp_weights_bk=(sequences.len_b_n > 0).astype(np.float32)[:, None],
        )
