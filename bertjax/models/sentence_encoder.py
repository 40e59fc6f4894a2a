"""An encoder that makes one vector of each sequence, as sentence-transformers has it, to be trained to embed texts."""

from typing import ClassVar

import flax.linen as nn
from jax import Array

from bertjax.models.bert import Bert
from bertjax.models.sentence import pool


class SentenceEncoder(nn.Module):
    """A `Bert` without the heads of pretraining, and pooling; parameters lie where `Bert` has its own.

    Letters: b rows, t tokens of a row, k sequences of a row, e numbers of a vector.
    """

    NUM_INPUTS: ClassVar[int] = 4

    bert: Bert
    pooling: tuple[str, ...] = ("mean",)  # of `models.sentence.POOLINGS`; what several make stands one after the other
    skip: int = 0  # tokens at the start of each sequence that are not pooled, as of a prompt

    def setup(self) -> None:
        nn.share_scope(self, self.bert)

    def __call__(
        self,
        tokens_bt: Array,
        segments_bt: Array,
        positions_bt: Array,
        sequences_bt: Array,
        *,
        num_sequences: int = 1,
        train: bool = False,
    ) -> Array:
        """Returns a vector of each sequence, float32 [b, k, e]; what it is where there is no sequence means nothing.

        Args:
          tokens_bt, segments_bt, positions_bt, sequences_bt: as of `Bert.encode`.
          num_sequences: k.
          train: with it dropout is on, and `apply` needs `rngs={"dropout": key}`.
        """
        encoded_btd = self.bert.encode(tokens_bt, segments_bt, positions_bt, sequences_bt, train=train)
        return pool(self.pooling, encoded_btd, positions_bt, sequences_bt, num_sequences=num_sequences, skip=self.skip)

    @property
    def vector_size(self) -> int:
        """Number of numbers in a vector."""
        return len(self.pooling) * self.bert.config.hidden_size
