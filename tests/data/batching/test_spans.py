"""Spans against plain Python: a loop over words; and their lengths against the geometric distribution."""

import itertools

import numpy as np
import pytest
from made_up import assert_share

from bertjax.data.batching.random import in_random_order, random_bits
from bertjax.data.batching.spans import LONGEST, some_spans, span_lengths

GEOMETRIC = 0.2 * 0.8 ** np.arange(LONGEST)
SHARES = GEOMETRIC / GEOMETRIC.sum()  # of lengths 1 to 10
STREAMS = {"order": 1 << 20, "length": 2 << 20}


def some_rows(count=300, t=60, seed=0):
    """Which tokens are words, which of them begin one, and how many are enough."""
    rng = np.random.default_rng(seed)
    is_word = rng.random((count, t)) < rng.random((count, 1))
    is_word[0], is_word[1] = False, True
    return is_word, is_word & (rng.random((count, t)) < 0.6), rng.integers(0, is_word.sum(axis=1) + 1)


def by_a_loop(is_word, begins, enough, key, longest):
    """One row; the same random numbers."""
    words = []
    for i in np.flatnonzero(is_word):
        if begins[i] or i == 0 or not is_word[i - 1]:
            words.append([])
        words[-1].append(int(i))
    number_of, left = np.zeros(len(is_word), int), enough
    order = in_random_order(np.array([key]), STREAMS["order"], np.ones((1, len(words)), bool), len(words))[0]
    for number, first in enumerate(order):
        count = span_lengths(random_bits(np.array([key]), STREAMS["length"] + number))[0] if longest > 1 else 1
        for word in range(first, min(first + count, len(words))):
            apart = word > first and words[word][0] != words[word - 1][-1] + 1
            if apart or number_of[words[word]].any() or len(words[word]) > left:
                break
            number_of[words[word]] = number + 1
            left -= len(words[word])
    if left == enough > 0:
        number_of[words[order[0]][:enough]] = 1
    return number_of


@pytest.mark.parametrize("longest", [1, LONGEST])
def test_spans_are_those_of_a_loop(longest):
    is_word, begins, enough = some_rows()
    keys = random_bits(3, np.arange(len(enough)))
    spans = some_spans(is_word, begins, enough, keys, longest, **STREAMS)
    for row, expected in enumerate(map(by_a_loop, is_word, begins, enough, keys, itertools.repeat(longest))):
        np.testing.assert_array_equal(spans[row], expected)
    alone = some_spans(is_word[9:10], begins[9:10], enough[9:10], keys[9:10], longest, **STREAMS)
    np.testing.assert_array_equal(alone, spans[9:10])
    assert some_spans(is_word[:0], begins[:0], enough[:0], keys[:0], longest, **STREAMS).shape == (0, 60)


def assert_lengths(lengths, shares):
    """Within five standard deviations, each length."""
    for length, share in enumerate(shares, 1):
        assert_share((lengths == length).sum(), len(lengths), share)


def test_lengths_are_geometric():
    lengths = span_lengths(random_bits(0, np.arange(100_000)))
    assert_lengths(lengths, SHARES)
    assert abs(lengths.mean() - 3.8) < 0.05  # as the paper says
    assert span_lengths(np.array([0, 2**64 - 1], np.uint64)).tolist() == [1, LONGEST]


@pytest.mark.parametrize("segment", [4, 15, 40])
def test_the_first_span_is_cut_by_the_end_of_its_segment_alone(segment):
    """Over 100,000 tokens, in segments of so many words: where all can be had, a first word is anywhere."""
    t = 2 * (segment + 1)
    is_word = np.tile(np.arange(t) % (segment + 1) < segment, (100_000 // t + 6000, 1))
    keys, enough = random_bits(0, np.arange(len(is_word))), np.full(len(is_word), LONGEST)
    spans = some_spans(is_word, is_word, np.minimum(enough, 2 * segment), keys, LONGEST, **STREAMS)
    lengths = (spans == 1).sum(axis=1)
    left = 1 + np.arange(segment)  # words from the first one to the end
    assert lengths.max() <= segment
    assert_lengths(
        lengths,
        [(SHARES[n - 1] * (left >= n) + SHARES[n:].sum() * (left == n)).mean() for n in range(1, min(segment, 10) + 1)],
    )
    assert not spans[~is_word].any()


def test_spans_are_whole_words_side_by_side_and_end_before_what_is_none():
    is_word, begins, enough = some_rows(3000)
    assert is_word.size > 100_000
    keys = random_bits(3, np.arange(len(enough)))
    spans = some_spans(is_word, begins, enough, keys, LONGEST, **STREAMS)
    assert ((spans > 0).sum(axis=1) <= enough).all() and ((spans > 0).sum(axis=1)[enough > 0] > 0).all()
    follows = np.pad(is_word, ((0, 0), (1, 0)))[:, :-1]
    word = np.cumsum(begins | (is_word & ~follows), axis=1)
    for row in range(len(spans)):
        cut_first = len(set(spans[row])) == 2  # perhaps the one word that is too long
        for number in set(spans[row].tolist()) - {0}:
            [here] = np.nonzero(spans[row] == number)
            assert here[-1] - here[0] + 1 == len(here)  # so all of it is words
            assert len(set(word[row, here])) <= LONGEST
            whole = np.isin(word[row], word[row, here]) & is_word[row]
            assert cut_first or whole.sum() == len(here)
