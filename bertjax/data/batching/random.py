"""Random choices as hashes of what they are for: nothing is kept between them, and any can be made alone."""

import numpy as np


def random_bits(key: int | np.ndarray, *words: int | np.ndarray) -> np.ndarray:
    """Returns 64 random bits for each key and words, broadcast together: SplitMix64 (Steele et al. 2014), chained."""
    bits: np.ndarray = np.asarray(key, np.uint64)
    for word in words:
        # Overflow is meant, and numpy warns of it for scalars only: at least one dimension.
        bits = bits + np.atleast_1d(np.asarray(word, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        bits ^= bits >> np.uint64(30)
        bits *= np.uint64(0xBF58476D1CE4E5B9)
        bits ^= bits >> np.uint64(27)
        bits *= np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return bits


def random_below(end: int | np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Returns random integers in [0, end), int64, from 64 random bits each; `end` is below 2**32."""
    return (((bits >> np.uint64(32)) * np.asarray(end, np.uint64)) >> np.uint64(32)).astype(np.int64)


def in_random_order(key_b: np.ndarray, word: int, possible_bt: np.ndarray, count: int) -> np.ndarray:
    """Returns the first `count` of each row's possible places in a random order, int32 [b, count]; 0 after the last.

    Args:
      key_b: uint64, of the row.
      word: the first of t streams of random numbers, one for each place.
      possible_bt: bool.
    """
    t = possible_bt.shape[1]
    # Random numbers that carry their place in the low bits are sorted.
    low = np.uint64((1 << t.bit_length()) - 1)
    order_bt = random_bits(key_b[:, None], word + np.arange(t))
    order_bt &= ~low
    order_bt |= np.arange(t, dtype=np.uint64)
    order_bt[~possible_bt] = ~low
    order_bt.sort(axis=1)
    return (order_bt[:, :count] & low).astype(np.int32)


def shuffled(index_n: np.ndarray, size: int, key_n: np.ndarray) -> np.ndarray:
    """Permutes range(size) at random, in its own way for each key, and returns where each index goes; makes no table.

    A Feistel network over the next power of two, walked until it is back in range (Black and Rogaway 2002).

    Args:
      index_n: int64, in range(size).
      key_n: uint64, of the permutation.
    """
    bits = max(2, (size - 1).bit_length())
    right_bits = np.uint64(bits // 2)
    right_mask = (np.uint64(1) << right_bits) - np.uint64(1)
    left_mask = (np.uint64(1) << (np.uint64(bits) - right_bits)) - np.uint64(1)
    turn_keys_6n = random_bits(key_n, np.arange(6)[:, None])
    at_n, outside_n = index_n.astype(np.uint64), np.full(len(index_n), True)
    while outside_n.any():
        left, right, turn_keys = at_n[outside_n] >> right_bits, at_n[outside_n] & right_mask, turn_keys_6n[:, outside_n]
        for left_key, right_key in zip(turn_keys[::2], turn_keys[1::2], strict=True):
            left ^= random_bits(left_key, right) & left_mask
            right ^= random_bits(right_key, left) & right_mask
        at_n[outside_n] = (left << right_bits) | right
        outside_n = at_n >= size
    return at_n.astype(np.int64)
