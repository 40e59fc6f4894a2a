"""Pretraining: masked words, and pairs of sentences (Devlin et al. 2019, section 3.1)."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import HEADS
from bertjax.data.batching.batch import Batch
from bertjax.models.bert import Bert, Predictions, init_params
from bertjax.objectives.metrics import Mean, Metrics, correct, cross_entropy, weighted_mean
from bertjax.objectives.objective import Objective, Params
from bertjax.ops.blockwise import blockwise_cross_entropy
from bertjax.parallel.sharding import gathered_outside_layers


def pretraining_objective(
    model: Bert, *, heads: Mapping[str, str] = HEADS["mlm+nsp"], nsp_weight: float = 1.0, z_loss: float = 0.0
) -> Objective:
    """Masked words and pairs of sentences, as an objective.

    Args:
      model: with the mesh that the batches are to be spread over, if there is one.
      heads: those that learn, and what people call them; the other one's loss has weight 0 in every batch.
      nsp_weight: what the NSP loss counts for beside the MLM loss; 1 in BERT.
      z_loss: what the squared log of the softmax's denominator over the vocabulary counts for in gradients.
    """
    return Objective(
        heads=heads,
        loss_weights={"mlm_loss": 1.0, "nsp_loss": nsp_weight},
        init=functools.partial(init_params, model.clone(mesh=None)),
        metrics=functools.partial(batch_metrics, model, z_loss=z_loss),
        loss_counts=lambda batch: {"mlm_loss": batch.mlm_weights_bp.sum(), "nsp_loss": batch.nsp_weights_bk.sum()},
    )


def metrics_by_class(objective: Objective, model: Bert, classes_v: np.ndarray, names: Sequence[str]) -> Objective:
    """Returns the objective with the MLM loss and accuracy of each class of words among its metrics.

    Args:
      model: the objective's.
      classes_v: the class of each token that may be a label, a place in `names`.
    """
    return objective._replace(metrics=functools.partial(_metrics_by_class, model, classes_v, names))


def _metrics_by_class(
    model: Bert, classes_v: np.ndarray, names: Sequence[str], params: Params, batch: Batch, dropout_key: Array | None
) -> Metrics:
    """Each prediction is counted twice, among all and in its class: the head leaves out what has no weight."""
    predictions = apply_heads(model, params, batch, dropout_key)
    metrics = compute_metrics(model, predictions, batch)
    class_bp = jnp.asarray(classes_v)[batch.mlm_labels_bp]
    for number, name in enumerate(names):
        weights_bp = batch.mlm_weights_bp * (class_bp == number)
        its = compute_metrics(model, predictions, batch._replace(mlm_weights_bp=weights_bp))
        metrics |= {f"{name} {figure}": its[figure] for figure in ("mlm_loss", "mlm_accuracy")}
    return metrics


def batch_metrics(
    model: Bert, params: Params, batch: Batch, dropout_key: Array | None = None, *, z_loss: float = 0.0
) -> Metrics:
    """Computes losses and accuracies of a batch.

    Args:
      dropout_key: dropout is on where there is one.
      z_loss: weight of the squared log of the softmax's denominator, in gradients alone.
    """
    return compute_metrics(model, apply_heads(model, params, batch, dropout_key), batch, z_loss=z_loss)


def apply_heads(model: Bert, params: Params, batch: Batch, dropout_key: Array | None = None) -> Predictions:
    """Applies the model and both heads to a batch, but for the product with the vocabulary.

    Args:
      dropout_key: dropout is on where there is one.
    """
    predictions: Predictions = apply_model(model, params, batch, dropout_key)
    return predictions


def apply_model(
    model: Bert, params: Params, batch: Batch, dropout_key: Array | None = None, *, mutable: bool | str = False
) -> Any:
    """Does what `apply_heads` does, and returns a collection of what the model keeps too, where one is named."""
    return model.apply(
        {"params": gathered_outside_layers(params, model.mesh)},
        *(batch.tokens_bt, batch.segments_bt, batch.positions_bt, batch.sequences_bt),
        *(batch.mlm_positions_bp, batch.cls_positions_bk),
        train=dropout_key is not None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
        method="predict",
        mutable=mutable,
    )


def compute_metrics(model: Bert, predictions: Predictions, batch: Batch, *, z_loss: float = 0.0) -> Metrics:
    """Compares predictions with the labels of a batch: losses (nats) and accuracies of both heads, undivided.

    Args:
      z_loss: weight of the squared log of the softmax's denominator, in gradients alone.
    """
    mlm_loss, mlm_correct = blockwise_cross_entropy(
        predictions.mlm_hidden_bpd.reshape(-1, model.config.embedding_width),
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
