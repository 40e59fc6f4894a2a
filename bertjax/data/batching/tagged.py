"""Batches of sequences whose tokens have labels, packed into rows of one shape."""

from typing import NamedTuple

import numpy as np

from bertjax.data.batching.packed import Layout, PackedBatches
from bertjax.data.tagged import TaggedExamples


class TaggedBatch(NamedTuple):
    """b rows of t tokens, some of which have a label; padding is 0 in every field.

    Numpy arrays of int32, but for the weights.
    """

    tokens_bt: np.ndarray
    segments_bt: np.ndarray
    positions_bt: np.ndarray
    sequences_bt: np.ndarray  # which of the row's sequences a token belongs to, from 1 on
    labels_bt: np.ndarray
    weights_bt: np.ndarray  # float32, 1 where a token has a label


class TaggedBatches(PackedBatches[TaggedBatch]):
    """Tagged sentences in batches; the arguments are those of `PackedBatches`."""

    def __init__(self, examples: TaggedExamples, *, batch_size: int, row_length: int | None = None, seed: int):
        super().__init__(examples, batch_size=batch_size, row_length=row_length, seed=seed)
        self._labels_m = examples.labels_m

    def _made(self, layout: Layout) -> TaggedBatch:
        labels_m = self._labels_m[layout.tokens_m]
        return TaggedBatch(
            *layout.inputs,
            layout.on_tokens(np.maximum(labels_m, 0)),
            layout.on_tokens((labels_m >= 0).astype(np.float32)),
        )
