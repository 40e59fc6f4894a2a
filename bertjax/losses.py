"""The two losses of BERT (Devlin et al. 2019, section 3.1) as (total, weight), to be divided once, at the end."""

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


def mlm_loss_all_slots(logits_bpv: Array, labels_bp: Array) -> Mean:
    """What the textbook prints: empty slots (label 0 read at position 0) count as predictions too."""
    losses_bp = _cross_entropy(logits_bpv, labels_bp)
    return _weighted(losses_bp, jnp.ones_like(losses_bp))


def nsp_loss(logits_bk2: Array, labels_bk: Array, weights_bk: Array) -> Mean:
    """Cross-entropy in nats over the sequences whose weight is 1; label 1 is "is next"."""
    return _weighted(_cross_entropy(logits_bk2, labels_bk), weights_bk)


def accuracy(logits: Array, labels: Array, weights: Array) -> Mean:
    """Share of labels that are the most likely class, over those whose weight is 1."""
    return _weighted((logits.argmax(-1) == labels).astype(jnp.float32), weights)


def _cross_entropy(logits: Array, labels: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def _weighted(values: Array, weights: Array) -> Mean:
    return Mean((values * weights).sum(), weights.sum())
