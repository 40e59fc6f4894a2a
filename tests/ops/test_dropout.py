"""Dropout drops at its rate, independently from place to place and from key to key, and the same on any layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bertjax.ops.dropout import dropout, hashed_bits
from bertjax.parallel.sharding import make_mesh

KEY = jax.random.key(7)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5])
def test_it_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    dropped = np.asarray(dropout(jnp.ones((1000, 1000)), rate, KEY))
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / (1 - rate)], rtol=1e-6)
    deviation = (rate * (1 - rate) / dropped.size) ** 0.5
    assert abs((dropped == 0).mean() - rate) < 4 * deviation


def test_each_bit_and_each_pair_of_neighbours_is_even() -> None:
    bits = np.asarray(hashed_bits(KEY, (512, 2048)))
    ones = np.array([(bits >> np.uint32(bit) & 1).mean() for bit in range(32)])
    assert np.abs(ones - 0.5).max() < 4.5 * 0.5 / bits.size**0.5
    kept = (bits >= 2**31).astype(float) - 0.5
    for down, right in ((0, 1), (1, 0), (1, 1), (0, 2), (0, 64), (64, 0)):
        shifted = kept[down:, right:]
        correlation = 4 * (kept[: len(shifted), : shifted.shape[1]] * shifted).mean()
        assert abs(correlation) < 4.5 / shifted.size**0.5, (down, right)


def test_bytes_are_uniform() -> None:
    bits = np.asarray(hashed_bits(KEY, (1024, 1024)))
    for shift in (0, 8, 16, 24):
        counts = np.bincount((bits >> np.uint32(shift) & 255).ravel(), minlength=256)
        expected = bits.size / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 5 * (2 * 255) ** 0.5  # chi squared


def test_masks_of_different_keys_are_independent() -> None:
    keys = [jax.random.fold_in(KEY, step) for step in range(12)]
    kept = np.stack([np.asarray(hashed_bits(key, (300, 500))).ravel() >= 2**31 for key in keys]) - 0.5
    correlations = 4 * kept @ kept.T / kept.shape[1]
    assert np.abs(correlations - np.eye(12)).max() < 4.5 / kept.shape[1] ** 0.5


def test_the_gradient_goes_through_the_same_mask() -> None:
    x = jnp.ones((64, 64))
    dropped, gradient = dropout(x, 0.3, KEY), jax.grad(lambda x: dropout(x, 0.3, KEY).sum())(x)
    np.testing.assert_array_equal(dropped, gradient)


def test_without_key_or_rate_nothing_is_dropped() -> None:
    x = jnp.arange(6.0)
    assert dropout(x, 0.5, None) is x and dropout(x, 0.0, KEY) is x


def test_devices_rows_added_and_scans_change_no_bit() -> None:
    shape = (16, 8)
    bits = np.asarray(hashed_bits(KEY, shape))
    by_rows = NamedSharding(make_mesh(), PartitionSpec("data"))
    np.testing.assert_array_equal(jax.jit(lambda: hashed_bits(KEY, shape), out_shardings=by_rows)(), bits)
    np.testing.assert_array_equal(hashed_bits(KEY, (24, 8))[:16], bits)
    _, scanned = jax.lax.scan(lambda carry, key: (carry, hashed_bits(key, shape)), 0, KEY[None])
    np.testing.assert_array_equal(scanned[0], bits)
