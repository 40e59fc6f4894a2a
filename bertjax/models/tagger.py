"""An encoder with a head that tells the label of each token, as `BertForTokenClassification` of transformers has it."""

from typing import ClassVar

import flax.linen as nn
from jax import Array

from bertjax.models.bert import Bert
from bertjax.models.heads import TaggingHead


class TokenClassifier(nn.Module):
    """A `Bert` without the heads of pretraining, and a head for tokens; parameters lie where `Bert` has its own.

    Letters: b rows, t tokens of a row, d hidden, c labels.
    """

    NUM_INPUTS: ClassVar[int] = 4

    bert: Bert
    num_labels: int

    def setup(self) -> None:
        nn.share_scope(self, self.bert)
        self.head = TaggingHead(self.bert.config, self.bert.dtype, self.num_labels)
        nn.share_scope(self, self.head)

    def __call__(
        self, tokens_bt: Array, segments_bt: Array, positions_bt: Array, sequences_bt: Array, *, train: bool = False
    ) -> Array:
        """Returns logits of the labels of each token, float32 [b, t, c].

        Args:
          tokens_bt, segments_bt, positions_bt, sequences_bt: as of `Bert.encode`.
          train: with it dropout is on, and `apply` needs `rngs={"dropout": key}`.
        """
        encoded_btd = self.bert.encode(tokens_bt, segments_bt, positions_bt, sequences_bt, train=train)
        logits_mc = self.head(encoded_btd.reshape(-1, encoded_btd.shape[-1]), train=train)
        return logits_mc.reshape(*tokens_bt.shape, -1)
