"""Attention's bias for how far apart two tokens are (Raffel et al. 2020, arXiv:1910.10683, section 2.1).

Also what disentangled attention adds for the way between them (He et al. 2020, arXiv:2006.03654).

Letters: n buckets, b rows, h heads, t tokens of a row that look, s tokens of a row that are looked at, e features of a
head, r buckets of ways.
"""

import math

import jax.numpy as jnp
from jax import Array

NUM_BUCKETS = 32  # half of them for tokens that come later
_EXACT = 8  # distances below have a bucket each, those above ever wider ones, up to that of 128 and more
MOST_DISTANCE = 128  # all that are as far or further are in one bucket
NUM_WAYS = 256  # of either direction: each up to half as many has a bucket, those further on ever wider ones
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


def disentangled_bias(q_bhte: Array, k_bhse: Array, q_hre: Array, k_hre: Array, ways_ts: Array) -> Array:
    """Returns what ways between tokens add to scores, [b, h, t, s] (He et al. 2020, arXiv:2006.03654, section 3.1).

    A token that looks is compared with the key of the way to each other, and each other with the query of that way.

    Args:
      q_bhte, k_bhse: those of tokens.
      q_hre, k_hre: those of ways.
      ways_ts: as `way_buckets` returns it.
    """
    to_ways_bhtr = jnp.einsum("bhte,hre->bhtr", q_bhte, k_hre)
    of_ways_bhsr = jnp.einsum("bhse,hre->bhsr", k_bhse, q_hre)
    to_bhts = jnp.take_along_axis(to_ways_bhtr, ways_ts[None, None], -1)
    of_bhts = jnp.take_along_axis(of_ways_bhsr, ways_ts.T[None, None], -1).swapaxes(2, 3)
    bias_bhts: Array = (to_bhts + of_bhts).astype(jnp.float32) * q_bhte.shape[-1] ** -0.5
    return bias_bhts


def way_buckets(length: int, most: int) -> Array:
    """Returns the bucket of the way from each token of a row to each other, int32 [t, s], from 0 to 2 * NUM_WAYS - 1.

    Args:
      most: tokens of the longest sequence.
    """
    places_t = jnp.arange(length)
    way_ts = places_t[:, None] - places_t[None]
    buckets = jnp.asarray(_buckets_of_distances(most))
    return NUM_WAYS + jnp.sign(way_ts) * buckets[jnp.minimum(jnp.abs(way_ts), most - 1)]


def _buckets_of_distances(most: int) -> list[int]:
    """Returns the bucket of each distance below `most`: all alike up to half of NUM_WAYS, then by their logarithm."""
    middle = NUM_WAYS // 2

    def bucket(distance: int) -> int:
        share = math.log(distance / middle) / math.log((most - 1) / middle) if distance > middle else 0.0
        return middle + math.ceil(share * (middle - 1)) if distance > middle else distance

    return [bucket(distance) for distance in range(most)]
