"""Attention inside each sequence of a row (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1)."""

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.ops.dropout import dropout as drop


def attention(
    q_bhte: Array, k_bhse: Array, v_bhse: Array, sequences_bt: Array, *, dropout: float = 0.0, key: Array | None = None
) -> Array:
    """Returns for each token the mean of the values it sees, weighted by how queries and keys agree: [b, h, t, e].

    Args:
      sequences_bt: which of the row's sequences a token belongs to, 1 or more; 0 is padding.
      dropout: rate at which attention weights are dropped.
      key: a `jax.random.key` for the dropout; without it nothing is dropped.
    """
    scores_bhts = jnp.einsum("bhte,bhse->bhts", q_bhte, k_bhse) * q_bhte.shape[-1] ** -0.5
    allowed_b1ts = attention_mask(sequences_bt)[:, None]
    # The lowest float, not -inf: a row of padding alone must average, not turn into NaN.
    scores_bhts = jnp.where(allowed_b1ts, scores_bhts.astype(jnp.float32), jnp.finfo(jnp.float32).min)
    weights_bhts = drop(jax.nn.softmax(scores_bhts).astype(q_bhte.dtype), dropout, key)
    return jnp.einsum("bhts,bhse->bhte", weights_bhts, v_bhse)


def attention_mask(sequences_bt: Array) -> Array:
    """bool [b, t, s]: token t sees token s when both are in the same sequence, and s is not padding (0)."""
    return (sequences_bt[:, :, None] == sequences_bt[:, None, :]) & (sequences_bt[:, None, :] > 0)
