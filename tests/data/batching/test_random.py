"""Hashes as chance: permutations, and numbers below an end."""

import itertools

import numpy as np
import pytest
from made_up import assert_uniform

from bertjax.data.batching.random import in_random_order, random_below, random_bits, shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000, 4097])
def test_shuffled_is_a_permutation(size):
    orders = [shuffled(np.arange(size), size, np.full(size, key, np.uint64)) for key in (0, 1, 2**64 - 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(size))
    if size >= 64:
        for one, other in itertools.combinations([np.arange(size), *orders], 2):
            assert (one == other).sum() < 10


@pytest.mark.parametrize("size", [64, 100])
def test_shuffled_takes_each_place_anywhere(size):
    keys = random_bits(3, np.arange(200 * size))
    for index in (0, size - 1):
        assert_uniform(shuffled(np.full(len(keys), index), size, keys).tolist(), range(size))


def test_a_random_order_of_what_is_possible():
    possible = np.tile([True, False, True, True, False], (6000, 1))
    order = in_random_order(random_bits(1, np.arange(6000)), 9, possible, 4)
    assert not order[:, 3].any()
    assert_uniform([tuple(row) for row in order[:, :3].tolist()], list(itertools.permutations([0, 2, 3])))


def test_random_below():
    assert_uniform(random_below(7, random_bits(5, np.arange(2000))).tolist(), range(7))
    extremes = np.array([0, 2**64 - 1], np.uint64)
    for end in (1, 7, 2**32 - 1):
        assert random_below(end, extremes).tolist() == [0, end - 1]
