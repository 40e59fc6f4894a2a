"""The two losses of BERT (Devlin et al. 2019, section 3.1) as (total, weight), to be divided once, at the end."""

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


def mlm_loss(logits_bpv: Array, labels_bp: Array, weights_bp: Array) -> Mean:
    """Cross-entropy in nats over the predictions whose weight is 1."""
    return _weighted(_cross_entropy(logits_bpv, labels_bp), weights_bp)


def mlm_loss_all_slots(logits_bpv: Array, labels_bp: Array, rows_b1: Array) -> Mean:
    """What the textbook prints: empty slots (label 0 read at position 0) of the rows of weight 1 count too."""
    return _weighted(_cross_entropy(logits_bpv, labels_bp), jnp.broadcast_to(rows_b1, labels_bp.shape))


def nsp_loss(logits_bk2: Array, labels_bk: Array, weights_bk: Array) -> Mean:
    """Cross-entropy in nats over the sequences whose weight is 1; label 1 is "is next"."""
    return _weighted(_cross_entropy(logits_bk2, labels_bk), weights_bk)


def accuracy(logits: Array, labels: Array, weights: Array) -> Mean:
    """Share of labels that no class is likelier than, over those whose weight is 1."""
    # Not argmax: over a vocabulary of 20,256, XLA took 24 times as long for it as for the maximum on a CPU.
    of_label = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return _weighted((of_label >= logits.max(axis=-1)).astype(jnp.float32), weights)


def _cross_entropy(logits: Array, labels: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def _weighted(values: Array, weights: Array) -> Mean:
    return Mean((values * weights).sum(), weights.sum())


class RunningMeans:
    """Means of named metrics over all that was added, on the host."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = collections.defaultdict(float)
        self._weights: dict[str, float] = collections.defaultdict(float)

    def add(self, metrics: Mapping[str, Mean]) -> None:
        """Metrics whose numbers are on the host already."""
        for name, mean in metrics.items():
            self._totals[name] += float(mean.total)
            self._weights[name] += float(mean.weight)

    def means(self) -> dict[str, float]:
        """0 where nothing had weight."""
        return {name: total / max(self._weights[name], 1.0) for name, total in self._totals.items()}
