"""Spans of whole words, chosen at random in every row until it has enough tokens."""

import numpy as np

from bertjax.data.batching.random import in_random_order, random_bits

LONGEST = 10  # words in a span
_P = 0.2  # of the geometric distribution of their lengths
# Joshi et al. 2020, "SpanBERT", section 3.1: the share of spans of up to 1, 2, ... words, on average 3.8.
_SHARE_UP_TO = (1 - (1 - _P) ** np.arange(1, LONGEST)) / (1 - (1 - _P) ** LONGEST)


def span_lengths(bits: np.ndarray) -> np.ndarray:
    """Draws lengths in words, 1 to LONGEST, from 64 random bits each."""
    return 1 + np.searchsorted(_SHARE_UP_TO, bits * 2.0**-64, side="right")


def some_spans(
    is_word_bt: np.ndarray,
    begins_bt: np.ndarray,
    enough_b: np.ndarray,
    keys_b: np.ndarray,
    longest: int,
    *,
    order: int,
    length: int,
) -> np.ndarray:
    """Returns the number of the span that each token is in, from 1 on; 0 where in none. int64 [b, t].

    A row's words are taken in a random order. Each begins a span, unless it is in one, of as many words as are drawn,
    but it ends before what is no word, before another span, and before a word that would make the row's tokens more
    than enough. So a word that alone would do that is left out. A row in which every word would has the first tokens
    of one word.

    Args:
      is_word_bt: bool, tokens that may be chosen; spans have no others.
      begins_bt: bool, of them those with which a word begins; so does each after one that may not be chosen.
      enough_b: tokens to choose at most.
      keys_b: uint64, of each row's random choices.
      longest: 1 for spans of one word, else LONGEST.
      order, length: the streams of random numbers, as words of `random_bits`.
    """
    b, t = is_word_bt.shape
    follows_bt = np.zeros_like(is_word_bt)  # whether a word's token stands before
    follows_bt[:, 1:] = is_word_bt[:, :-1]
    begins_bt = begins_bt | (is_word_bt & ~follows_bt)
    word_bt = begins_bt.cumsum(axis=1) * is_word_bt  # words are numbered from 1 on
    num_words_b = word_bt.max(axis=1)
    w = int(num_words_b.max(initial=0))
    sizes = np.bincount((np.arange(b)[:, None] * (w + 1) + word_bt).ravel(), minlength=b * (w + 1))
    size_bw = np.pad(sizes.reshape(b, w + 1), ((0, 0), (0, longest)))
    size_bw[:, 0] = 0
    size_bw[size_bw == 0] = t + 1  # what is no word never fits
    goes_on_bw = np.zeros(size_bw.shape, bool)  # whether the word before stands right before
    row_m, place_m = np.nonzero(begins_bt & follows_bt)
    goes_on_bw[row_m, word_bt[row_m, place_m]] = True

    order_bw = 1 + in_random_order(keys_b, order, np.arange(w) < num_words_b[:, None], w)
    span_bw, left_b, place_l = np.zeros(size_bw.shape, np.int64), enough_b.copy(), np.arange(longest)
    for number in range(w):
        row_n = np.flatnonzero((left_b > 0) & (number < num_words_b))
        if not len(row_n):
            break
        row_n1, word_nl = row_n[:, None], order_bw[row_n, number][:, None] + place_l
        size_nl = size_bw[row_n1, word_nl]
        in_span_nl = (span_bw[row_n1, word_nl] == 0) & (size_nl.cumsum(axis=1) <= left_b[row_n1])
        if longest > 1:
            in_span_nl &= goes_on_bw[row_n1, word_nl] | (place_l == 0)
            in_span_nl &= place_l < span_lengths(random_bits(keys_b[row_n], length + number))[:, None]
            in_span_nl = np.logical_and.accumulate(in_span_nl, axis=1)
        span_bw[row_n1, word_nl] += (number + 1) * in_span_nl
        left_b[row_n] -= (size_nl * in_span_nl).sum(axis=1)

    span_bt = np.take_along_axis(span_bw, word_bt, axis=1)
    if len(row_n := np.flatnonzero((left_b == enough_b) & (enough_b > 0))):
        first_nt = word_bt[row_n] == order_bw[row_n, :1]
        span_bt[row_n] = first_nt & (first_nt.cumsum(axis=1) <= enough_b[row_n, None])
    return span_bt
