"""Buckets of distances, against the published formula in float64, token by token."""

import math

import jax.numpy as jnp
import numpy as np

from bertjax.ops.distances import NUM_BUCKETS, distance_bias, distance_buckets


def published(way: int) -> int:
    """Raffel et al. 2020's, of the way from a token to another, in the form of `transformers`."""
    later, far = (NUM_BUCKETS // 2 if way > 0 else 0), abs(way)
    if far < 8:
        return later + far
    return later + min(15, 8 + int(math.log(far / 8) / math.log(128 / 8) * 8 + 1e-12))


def test_each_distance_has_its_bucket() -> None:
    wanted_ts = [[published(s - t) for s in range(140)] for t in range(140)]
    np.testing.assert_array_equal(distance_buckets(140), wanted_ts)
    assert len(np.unique(wanted_ts)) == NUM_BUCKETS - 1  # that of a later token at distance 0 is of none


def test_the_bias_is_that_of_the_bucket() -> None:
    table_nh = np.random.default_rng(0).normal(size=(NUM_BUCKETS, 3)).astype(np.float32)
    bias_hts = distance_bias(jnp.asarray(table_nh), 5)
    np.testing.assert_array_equal(bias_hts[:, 4, 1], table_nh[3])
    np.testing.assert_array_equal(bias_hts[:, 1, 4], table_nh[16 + 3])
