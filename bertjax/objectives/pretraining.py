"""Pretraining: masked words, and pairs of sentences (Devlin et al. 2019, section 3.1)."""

from typing import Any, NamedTuple

from jax import Array

from bertjax.data.batching.batch import Batch
from bertjax.models.bert import Bert, Predictions
from bertjax.objectives.metrics import Mean, Metrics, correct, cross_entropy, weighted_mean
from bertjax.ops.blockwise import blockwise_cross_entropy
from bertjax.parallel.sharding import gathered


class LossWeights(NamedTuple):
    """What the other losses count for beside that of the MLM head in the sum that gradients are taken of."""

    nsp: float = 1.0
    z: float = 0.0  # of the squared log of the softmax's denominator over the vocabulary


PLAIN_SUM = LossWeights()  # of the MLM and the NSP loss


def batch_metrics(
    model: Bert, params: dict[str, Any], batch: Batch, dropout_key: Array | None = None, *, z_loss: float = 0.0
) -> Metrics:
    """Losses and accuracies of a batch; dropout is on where there is a key for it, `z_loss` in gradients alone."""
    return compute_metrics(model, apply_heads(model, params, batch, dropout_key), batch, z_loss=z_loss)


def apply_heads(model: Bert, params: dict[str, Any], batch: Batch, dropout_key: Array | None = None) -> Predictions:
    """What the heads say of a batch."""
    outside_layers = {name: part for name, part in params.items() if not name.startswith("block_")}
    params = params | gathered(outside_layers, model.mesh)  # a layer gathers its own
    return model.apply(
        {"params": params},
        *(batch.tokens_bt, batch.segments_bt, batch.positions_bt, batch.sequences_bt),
        *(batch.mlm_positions_bp, batch.cls_positions_bk),
        train=dropout_key is not None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
        method="predict",
    )


def compute_metrics(model: Bert, predictions: Predictions, batch: Batch, *, z_loss: float = 0.0) -> Metrics:
    """Predictions beside what was to be predicted."""
    mlm_loss, mlm_correct = blockwise_cross_entropy(
        predictions.mlm_hidden_bpd.reshape(-1, model.config.hidden_size),
        predictions.vocab_kernel_dv,
        predictions.vocab_bias_v,
        batch.mlm_labels_bp.reshape(-1),
        batch.mlm_weights_bp.reshape(-1),
        dtype=model.dtype,
        mesh=model.mesh,
        z_loss=z_loss,
    )
    mlm_count = batch.mlm_weights_bp.sum()
    nsp_logits_bk2 = predictions.nsp_logits_bk2
    return {
        "mlm_loss": Mean(mlm_loss, mlm_count),
        "nsp_loss": weighted_mean(cross_entropy(nsp_logits_bk2, batch.nsp_labels_bk), batch.nsp_weights_bk),
        "mlm_accuracy": Mean(mlm_correct, mlm_count),
        "nsp_accuracy": weighted_mean(correct(nsp_logits_bk2, batch.nsp_labels_bk), batch.nsp_weights_bk),
    }
