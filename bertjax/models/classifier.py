"""An encoder with a head that tells labels or a number, as `BertForSequenceClassification` of transformers has it."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from bertjax.models.bert import Bert
from bertjax.models.heads import ClassificationHead
from bertjax.models.sentence import pool


class SequenceClassifier(nn.Module):
    """A `Bert` without the heads of pretraining, and a head for labels, or for one number; parameters lie where `Bert`
    has its own.

    Letters: b rows, t tokens of a row, k sequences of a row, d hidden, c labels.
    """

    NUM_INPUTS: ClassVar[int] = 5

    bert: Bert
    num_labels: int

    def setup(self) -> None:
        nn.share_scope(self, self.bert)
        self.head = ClassificationHead(self.bert.config, self.bert.dtype, self.num_labels)
        nn.share_scope(self, self.head)

    def __call__(
        self,
        tokens_bt: Array,
        segments_bt: Array,
        positions_bt: Array,
        sequences_bt: Array,
        cls_positions_bk: Array,
        *,
        train: bool = False,
    ) -> Array:
        """Returns logits of the labels of each sequence, float32 [b, k, c].

        Args:
          tokens_bt, segments_bt, positions_bt, sequences_bt: as of `Bert.encode`.
          cls_positions_bk: int32, places in the row of the sequences' first tokens.
          train: with it dropout is on, and `apply` needs `rngs={"dropout": key}`.
        """
        encoded_btd = self.bert.encode(tokens_bt, segments_bt, positions_bt, sequences_bt, train=train)
        if self.bert.config.classifier_pooling == "mean":
            k = cls_positions_bk.shape[1]
            pooled_bkd = pool(("mean",), encoded_btd, positions_bt, sequences_bt, num_sequences=k)
        else:
            pooled_bkd = jnp.take_along_axis(encoded_btd, cls_positions_bk[:, :, None], axis=1)
        logits_mc = self.head(pooled_bkd.reshape(-1, pooled_bkd.shape[-1]), train=train)
        return logits_mc.reshape(*cls_positions_bk.shape, -1)
