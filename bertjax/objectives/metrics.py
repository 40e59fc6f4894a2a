"""Losses and metrics as (total, weight), to be divided once, at the end, on the host."""

import collections
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array


class Mean(NamedTuple):
    """A mean not yet divided, so that means over parts, devices and steps stay exact."""

    total: Array
    weight: Array


Metrics = dict[str, Mean]


def weighted_mean(values: Array, weights: Array) -> Mean:
    """Returns the mean of the values whose weight is 1, undivided; weights are 1 or 0."""
    return Mean((values * weights).sum(), weights.sum())


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Returns -log softmax(logits) at the label, in nats, float32 [...].

    Args:
      logits: [..., classes].
      labels: int32 [...].
    """
    loss: Array = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    return loss


def mlm_loss_all_slots(logits_bpv: Array, labels_bp: Array) -> Mean:
    """Returns the MLM loss as the textbook prints it: empty slots (label 0 read at position 0) count too.

    Args:
      logits_bpv: of every slot.
      labels_bp: int32.
    """
    return weighted_mean(cross_entropy(logits_bpv, labels_bp), jnp.ones(labels_bp.shape))


def correct(logits: Array, labels: Array) -> Array:
    """Returns 1 where no class is likelier than the label, else 0, float32 [...].

    Args:
      logits: [..., classes].
      labels: int32 [...].
    """
    of_label = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return (of_label >= logits.max(axis=-1)).astype(jnp.float32)


class RunningMeans:
    """Means of named metrics over all that was added, on the host."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = collections.defaultdict(float)
        self._weights: dict[str, float] = collections.defaultdict(float)

    def add(self, metrics: Mapping[str, Mean]) -> None:
        """Adds metrics whose numbers are on the host already."""
        for name, mean in metrics.items():
            self._totals[name] += float(mean.total)
            self._weights[name] += float(mean.weight)

    def means(self) -> dict[str, float]:
        """Returns the means of the metrics that had any weight."""
        return {name: self._totals[name] / weight for name, weight in self.weights().items()}

    def weights(self) -> dict[str, float]:
        """Returns how many values are behind each mean."""
        return {name: weight for name, weight in self._weights.items() if weight != 0}  # one that is no number is told
