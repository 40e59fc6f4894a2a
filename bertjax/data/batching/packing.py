"""Several sequences a row: which row, where in it, and what a row may hold at most."""

from typing import Any, NamedTuple

import numpy as np


class Placement(NamedTuple):
    """Of n sequences: the row, the offset of the first token in it, and which of the row's sequences, from 0."""

    row_n: np.ndarray
    offset_n: np.ndarray
    slot_n: np.ndarray

    @property
    def num_rows(self) -> int:
        return int(self.row_n.max()) + 1

    def take(self, index: Any) -> "Placement":
        return Placement(*(field_n[index] for field_n in self))


def pack(lengths_n: np.ndarray, *, row_length: int, max_sequences: int, slack: int) -> Placement:
    """Fills row after row: the longest sequence left, then whatever fits best (after Krell et al. 2021).

    What fits best is the longest that leaves at most `slack` tokens empty; else the longest that another one completes
    exactly; else the longest. Some slack spares the short ones for the rows that are harder to fill. Sequences of one
    length are alike, so that rows of the same lengths are filled together: the work is by lengths, not by sequences.
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
    """The lengths of one row, of those present and left so many times."""
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


def most_in_a_row(value_by_length: np.ndarray, *, row_length: int, max_sequences: int) -> int:
    """The greatest sum of values in a row, where a sequence of l tokens has value_by_length[l]; 0 for no such ones."""
    most_by_used = np.zeros(row_length + 1, np.int64)  # in so many tokens at most
    for _ in range(max_sequences):
        before = most_by_used.copy()
        for length in np.flatnonzero(value_by_length).tolist():
            np.maximum(most_by_used[length:], before[:-length] + value_by_length[length], out=most_by_used[length:])
    return int(most_by_used[-1])
