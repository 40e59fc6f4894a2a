"""Batches of questions with windows of their contexts, packed into rows of one shape."""

from typing import NamedTuple

import numpy as np

from bertjax.data.batching.packed import Layout, PackedBatches
from bertjax.data.windows import AnswerExamples


class AnswerBatch(NamedTuple):
    """b rows of t tokens with k sequences at most, each with an answer; padding is 0 in every field.

    Numpy arrays of int32, but for the weights.
    """

    tokens_bt: np.ndarray
    segments_bt: np.ndarray
    positions_bt: np.ndarray
    sequences_bt: np.ndarray  # which of the row's sequences a token belongs to, from 1 on
    starts_bk: np.ndarray  # places in the row of the answers' first tokens; where there is none, of the sequence's
    ends_bk: np.ndarray  # likewise of their last ones
    weights_bk: np.ndarray  # float32, 1 where there is a sequence


class AnswerBatches(PackedBatches[AnswerBatch]):
    """Windows in batches; the arguments are those of `PackedBatches`."""

    def __init__(self, examples: AnswerExamples, *, batch_size: int, row_length: int | None = None, seed: int):
        super().__init__(examples, batch_size=batch_size, row_length=row_length, seed=seed)
        self._answers_n2 = examples.answers_n2

    def _made(self, layout: Layout) -> AnswerBatch:
        places_n2 = (layout.offset_n[:, None] + self._answers_n2[layout.numbers_n]).astype(np.int32)
        return AnswerBatch(
            *layout.inputs,
            layout.on_sequences(places_n2[:, 0]),
            layout.on_sequences(places_n2[:, 1]),
            layout.on_sequences(np.ones(len(layout.numbers_n), np.float32)),
        )
