"""Attention's bias for how far apart two tokens are (Raffel et al. 2020, arXiv:1910.10683, section 2.1).

Letters: n buckets, h heads, t tokens of a row that look, s tokens of a row that are looked at.
"""

import math

import jax.numpy as jnp
from jax import Array

NUM_BUCKETS = 32  # half of them for tokens that come later
_EXACT = 8  # distances below have a bucket each, those above ever wider ones, up to that of 128 and more
MOST_DISTANCE = 128  # all that are as far or further are in one bucket
_BOUNDS = tuple(math.ceil(_EXACT * 2 ** (step / 2) - 1e-9) for step in range(1, 8))


def distance_bias(table_nh: Array, length: int) -> Array:
    """Returns what is added to the score of each token for each, [h, t, s], of a row of that many tokens.

    Args:
      table_nh: the bias of each bucket of distances, for each head.
    """
    return jnp.moveaxis(table_nh[distance_buckets(length)], -1, 0)


def distance_buckets(length: int) -> Array:
    """Returns the bucket of the way from each token of a row to each other, int32 [t, s]."""
    places_t = jnp.arange(length)
    way_ts = places_t[None] - places_t[:, None]
    far_ts = jnp.abs(way_ts)
    wide_ts = _EXACT + sum((far_ts >= bound).astype(jnp.int32) for bound in _BOUNDS)
    return jnp.where(far_ts < _EXACT, far_ts, wide_ts) + NUM_BUCKETS // 2 * (way_ts > 0)
