"""Packing: several sequences a row, which row, where in it, and what a row may hold at most."""

from typing import Any, NamedTuple

import numpy as np

from bertjax.data.batching.batch import Batch


class Placement(NamedTuple):
    """The places of n sequences: row, offset of the first token in it, and which of the row's sequences, from 0."""

    row_n: np.ndarray
    offset_n: np.ndarray
    slot_n: np.ndarray

    @property
    def num_rows(self) -> int:
        """Number of rows in use."""
        return int(self.row_n.max()) + 1

    def take(self, index: Any) -> "Placement":
        """Returns some of the places, as numpy's indexing chooses them."""
        return Placement(*(field_n[index] for field_n in self))


def pack(lengths_n: np.ndarray, *, row_length: int, max_sequences: int, slack: int) -> Placement:
    """Fills row after row: the longest sequence left, then whatever fits best (after Krell et al. 2021).

    What fits best is the longest that leaves at most `slack` tokens empty; else the longest that another one completes
    exactly; else the longest. Some slack spares the short ones for the rows that are harder to fill. Sequences of one
    length are alike, so that rows of the same lengths are filled together: the work is by lengths, not by sequences.

    Args:
      lengths_n: tokens of each sequence, none above row_length.
      row_length: tokens in a row.
      max_sequences: sequences in a row.
      slack: tokens.
    """
    order_n = np.argsort(lengths_n, kind="stable")
    counts = np.bincount(lengths_n, minlength=row_length + 1)
    next_of_length = (np.cumsum(counts) - counts).tolist()
    left = counts.tolist()
    present = sum(1 << length for length, count in enumerate(left) if count)  # a set of lengths is a number's bits
    fills, first_row = [], 0
    while present:
        lengths = _fill_row(present, left, row_length, max_sequences, slack)
        rows = min(left[length] // lengths.count(length) for length in lengths)
        offset = 0
        for slot, length in enumerate(lengths):
            fills.append((next_of_length[length], rows, first_row, offset, slot))
            next_of_length[length] += rows
            left[length] -= rows
            if not left[length]:
                present &= ~(1 << length)
            offset += length
        first_row += rows

    first_m, rows_m, first_row_m, offset_m, slot_m = np.array(fills).T
    within_n = np.arange(len(lengths_n)) - np.repeat(np.cumsum(rows_m) - rows_m, rows_m)
    sequence_n = order_n[np.repeat(first_m, rows_m) + within_n]
    placement = Placement(*np.empty((3, len(lengths_n)), np.int64))
    placement.row_n[sequence_n] = np.repeat(first_row_m, rows_m) + within_n
    placement.offset_n[sequence_n] = np.repeat(offset_m, rows_m)
    placement.slot_n[sequence_n] = np.repeat(slot_m, rows_m)
    return placement


def _fill_row(present: int, left: list[int], row_length: int, max_sequences: int, slack: int) -> list[int]:
    """Returns the lengths of one row, of those present and left so many times."""
    lengths: list[int] = []
    room = row_length
    while len(lengths) < max_sequences and (fitting := present & ((2 << room) - 1)):
        enough = max(room - slack, 0)
        best = fitting >> enough << enough
        if not best and len(lengths) < max_sequences - 1:
            # Read backwards from `room`, the set of lengths is the set of what they would complete.
            best = fitting & int(f"{present:0{row_length + 1}b}"[::-1], 2) >> (row_length - room)
        length = (best or fitting).bit_length() - 1
        lengths.append(length)
        room -= length
        if lengths.count(length) == left[length]:
            present &= ~(1 << length)
    return lengths


def spread(lengths_n: np.ndarray, *, num_rows: int) -> Placement:
    """Fills all rows evenly: none has two sequences more than another, and each has some of every length.

    The longest ones, as many as there are rows, begin a row each; of the next ones the longest goes where there is most
    room, and so on.

    Args:
      lengths_n: tokens of each sequence.
      num_rows: whose lengths are what comes of it.
    """
    order_n = np.argsort(-lengths_n, kind="stable")
    placement = Placement(*np.empty((3, len(lengths_n)), np.int64))
    used_r = np.zeros(num_rows, np.int64)
    for slot, first in enumerate(range(0, len(order_n), num_rows)):
        some = order_n[first : first + num_rows]
        rows = np.argsort(used_r, kind="stable")[: len(some)]
        placement.row_n[some], placement.offset_n[some], placement.slot_n[some] = rows, used_r[rows], slot
        used_r[rows] += lengths_n[some]
    return placement


def most_in_a_row(value_by_length: np.ndarray, *, row_length: int, max_sequences: int) -> int:
    """Returns the greatest sum of values that a row may have.

    Args:
      value_by_length: of a sequence of l tokens, for each l; 0 for no such sequences.
      row_length: tokens in a row.
      max_sequences: sequences in a row.
    """
    most_by_used = np.zeros(row_length + 1, np.int64)  # in so many tokens at most
    for _ in range(max_sequences):
        before = most_by_used.copy()
        for length in np.flatnonzero(value_by_length).tolist():
            np.maximum(most_by_used[length:], before[:-length] + value_by_length[length], out=most_by_used[length:])
    return int(most_by_used[-1])


def into_rows(
    batch: Batch,
    lengths_n: np.ndarray,
    placement: Placement,
    *,
    num_rows: int,
    row_length: int,
    max_sequences: int,
    num_predictions: int,
) -> Batch:
    """Moves the sequences of a batch to their places in shared rows; what is left over is padding of weight 0.

    Args:
      batch: n sequences, one a row.
      lengths_n: tokens of each.
      placement: of each, ordered by row and slot.
      num_rows, row_length, max_sequences, num_predictions: b, t, k and p of the new batch.
    """
    row_n, offset_n, slot_n = placement
    token_at = np.flatnonzero(batch.sequences_bt)
    # A token's place in the new rows, all taken as one line, is its old one and what its sequence moves by.
    moved_n = row_n * row_length + offset_n - np.arange(len(row_n)) * batch.tokens_bt.shape[1]
    new_token_at = token_at + np.repeat(moved_n, lengths_n)

    is_real_np = batch.mlm_weights_bp > 0
    prediction_at = np.flatnonzero(is_real_np)
    counts_n = np.count_nonzero(is_real_np, axis=1)
    before_n = np.cumsum(counts_n) - counts_n
    # A row's predictions stand side by side, from the first of its first sequence on.
    moved_n = row_n * num_predictions - before_n[np.searchsorted(row_n, row_n)]
    new_prediction_at = np.arange(len(prediction_at)) + np.repeat(moved_n, counts_n)

    def move(field: np.ndarray, at: np.ndarray, new_at: np.ndarray, width: int) -> np.ndarray:
        moved = np.zeros((num_rows, width), field.dtype)
        moved.ravel()[new_at] = field.ravel()[at]
        return moved

    tokens = (token_at, new_token_at, row_length)
    predictions = (prediction_at, new_prediction_at, num_predictions)
    sequences = (np.arange(len(row_n)), row_n * max_sequences + slot_n, max_sequences)
    offset_n1, slot_n1 = offset_n.astype(np.int32)[:, None], slot_n.astype(np.int32)[:, None]
    return Batch(
        tokens_bt=move(batch.tokens_bt, *tokens),
        segments_bt=move(batch.segments_bt, *tokens),
        positions_bt=move(batch.positions_bt, *tokens),
        sequences_bt=move(batch.sequences_bt + slot_n1, *tokens),
        mlm_positions_bp=move(batch.mlm_positions_bp + offset_n1, *predictions),
        mlm_labels_bp=move(batch.mlm_labels_bp, *predictions),
        mlm_weights_bp=move(batch.mlm_weights_bp, *predictions),
        cls_positions_bk=move(batch.cls_positions_bk + offset_n1, *sequences),
        nsp_labels_bk=move(batch.nsp_labels_bk, *sequences),
        nsp_weights_bk=move(batch.nsp_weights_bk, *sequences),
    )
