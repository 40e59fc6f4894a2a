"""What a model tells of each sequence of a batch, which the objectives of labels and numbers share."""

from jax import Array

from bertjax.data.batching.labelled import LabelledBatch
from bertjax.models.classifier import SequenceClassifier
from bertjax.objectives.objective import Params
from bertjax.parallel.sharding import gathered_outside_layers


def sequence_logits(
    model: SequenceClassifier, params: Params, batch: LabelledBatch, dropout_key: Array | None = None
) -> Array:
    """Returns logits of each sequence, float32 [b, k, c].

    Args:
      dropout_key: dropout is on where there is one.
    """
    logits_bkc: Array = model.apply(
        {"params": gathered_outside_layers(params, model.bert.mesh)},
        *(batch.tokens_bt, batch.segments_bt, batch.positions_bt, batch.sequences_bt, batch.cls_positions_bk),
        train=dropout_key is not None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )
    return logits_bkc
