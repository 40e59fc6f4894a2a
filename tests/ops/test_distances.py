"""Buckets of distances, against the published formula in float64, token by token."""

import math

import jax.numpy as jnp
import numpy as np

from bertjax.ops.distances import (
    NUM_BUCKETS,
    NUM_WAYS,
    disentangled_bias,
    distance_bias,
    distance_buckets,
    way_buckets,
)


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


def published_way(way: int, most: int) -> int:
    """He et al. 2021's bucket of the way from a token to another, in the form of `transformers`."""
    if abs(way) <= 128:
        return 256 + way
    share = np.log(np.float32(abs(way)) / np.float32(128)) / np.log(np.float32((most - 1) / 128))
    return int(np.clip(256 + math.copysign(math.ceil(share * 127) + 128, way), 0, 511))


def test_each_way_has_its_bucket() -> None:
    for most in (12, 129, 320, 512):
        found_ts = np.asarray(way_buckets(most, most))
        np.testing.assert_array_equal(found_ts[:, 0], [published_way(way, most) for way in range(most)])
        np.testing.assert_array_equal(found_ts[0], [published_way(-way, most) for way in range(most)])
        np.testing.assert_array_equal(found_ts[1:, 1:], found_ts[:-1, :-1])


def test_disentangled_scores_are_those_of_pairs() -> None:
    rng = np.random.default_rng(0)
    q_bhte, k_bhse = rng.normal(size=(2, 1, 2, 5, 4)).astype(np.float32)
    q_hre, k_hre = rng.normal(size=(2, 2, 2 * NUM_WAYS, 4)).astype(np.float32)
    bias_bhts = np.asarray(disentangled_bias(*map(jnp.asarray, (q_bhte, k_bhse, q_hre, k_hre)), way_buckets(5, 20)))
    for h, t, s in ((0, 0, 4), (1, 3, 1), (1, 2, 2)):
        wanted = q_bhte[0, h, t] @ k_hre[h, 256 + t - s] + k_bhse[0, h, s] @ q_hre[h, 256 + t - s]
        np.testing.assert_allclose(bias_bhts[0, h, t, s], wanted / 2, rtol=1e-5)
