"""The loss of labels of which each thing has one: a sequence, or a token. Letters: c labels; ... is what has them."""

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.objectives.metrics import Mean, Metrics, correct, cross_entropy, weighted_mean


def label_metrics(
    head: str,
    logits: Array,
    labels: Array,
    present: Array,
    *,
    learning: bool,
    label_smoothing: float,
    class_weights: tuple[float, ...] | None,
) -> Metrics:
    """Computes loss and accuracy, as `torch.nn.CrossEntropyLoss(weight, label_smoothing)` has the former.

    Args:
      head: what the names of the metrics begin with.
      logits: float32 [..., c].
      labels: int32 [...].
      present: float32 [...], 1 where there is a label, else 0.
      learning: with smoothing and weights. Else the loss is plain.
      label_smoothing: share of each label's probability that is spread over all of them.
      class_weights: what each label counts for; by default 1.
    """
    losses = cross_entropy(logits, labels)
    accuracy = weighted_mean(correct(logits, labels), present)
    if not learning:
        return {f"{head}_loss": weighted_mean(losses, present), f"{head}_accuracy": accuracy}
    weights = label_weights(labels, present, class_weights)
    loss = Mean((losses * weights).sum(), weights.sum())
    if label_smoothing:
        # Of each label the same share; a label's own loss weighs as that label does.
        of_class = jnp.asarray((1.0,) * logits.shape[-1] if class_weights is None else class_weights, jnp.float32)
        of_class = of_class.reshape((1,) * (logits.ndim - 1) + (-1,))
        each = -jax.nn.log_softmax(logits) * (present[..., None] * of_class)
        loss = Mean((1 - label_smoothing) * loss.total + label_smoothing * each.sum() / logits.shape[-1], loss.weight)
    return {f"{head}_loss": loss, f"{head}_accuracy": accuracy}


def label_weights(labels: Array, present: Array, class_weights: tuple[float, ...] | None) -> Array:
    """Returns what each label counts for in the loss, float32 [...]; the arguments are those of `label_metrics`."""
    return present if class_weights is None else present * jnp.asarray(class_weights, jnp.float32)[labels]
