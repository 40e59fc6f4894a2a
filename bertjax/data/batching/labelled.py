"""Batches of labelled sequences, packed into rows of one shape."""

from typing import NamedTuple

import numpy as np

from bertjax.data.batching.packed import Layout, PackedBatches
from bertjax.data.examples import Examples


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


class LabelledBatches(PackedBatches[LabelledBatch]):
    """Labelled sequences in batches.

    Args:
      examples, batch_size, row_length, seed: as of `PackedBatches`.
      balance: every batch has its share of all labels; examples of several labels have a kind for each set of them.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        row_length: int | None = None,
        seed: int,
        balance: bool = False,
    ):
        kinds_n = np.unique(examples.labels_n, axis=0, return_inverse=True)[1].ravel() if balance else None
        super().__init__(examples, batch_size=batch_size, row_length=row_length, seed=seed, kinds_n=kinds_n)
        self._labels_n = examples.labels_n

    def _made(self, layout: Layout) -> LabelledBatch:
        return LabelledBatch(
            *layout.inputs,
            layout.on_sequences(layout.offset_n.astype(np.int32)),
            layout.on_sequences(self._labels_n[layout.numbers_n]),
            layout.on_sequences(np.ones(len(layout.numbers_n), np.float32)),
        )
