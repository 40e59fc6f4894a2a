"""Masks against plain Python: a loop over rows, counts of what chance does."""

import itertools

import numpy as np
import pytest
from made_up import assert_share, assert_uniform

from bertjax.data.masking import mask_tokens
from bertjax.data.random import random_bits
from bertjax.data.tokenizer import CLS, MASK, NUM_SPECIAL, PAD, SEP, UNK, Vocabulary

VOCAB_SIZE = 105


def some_rows(count, t, seed=0):
    """Random tokens, a third of them special, in rows of which some are short and some without a word."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(NUM_SPECIAL, VOCAB_SIZE, (count, t))
    tokens = np.where(rng.random((count, t)) < 1 / 3, rng.integers(0, NUM_SPECIAL, (count, t)), tokens)
    tokens[:, 0] = CLS
    return tokens.astype(np.int32), np.arange(t) < rng.integers(1, t + 1, count)[:, None]


def mask(tokens, present, *, rate=0.15, predict_unk=False, vocab_size=VOCAB_SIZE, seed=0):
    keys = random_bits(seed, np.arange(len(tokens)))
    return mask_tokens(tokens, present, keys, rate=rate, predict_unk=predict_unk, vocabulary=Vocabulary(vocab_size))


@pytest.mark.parametrize("predict_unk", [False, True])
@pytest.mark.parametrize("rate", [0.01, 0.15, 0.5, 1])
def test_what_is_predicted(rate, predict_unk):
    tokens, present = some_rows(400, 40)
    masked, *predictions = mask(tokens, present, rate=rate, predict_unk=predict_unk)
    assert predictions[0].shape[1] == max(1, round(rate * 40))
    predictable = {*range(NUM_SPECIAL, VOCAB_SIZE), *([UNK] if predict_unk else [])}
    unknown = 0
    for row, positions, labels, weights in zip(range(400), *predictions, strict=True):
        words = [i for i in range(40) if present[row, i] and tokens[row, i] in predictable]
        count = min(len(words), max(1, round(rate * len(words))))
        assert weights.tolist() == [1] * count + [0] * (len(weights) - count)
        assert len(set(positions[:count])) == count and set(positions[:count]) <= set(words)
        assert labels[:count].tolist() == tokens[row, positions[:count]].tolist()
        assert not positions[count:].any() and not labels[count:].any()
        others = np.setdiff1d(np.arange(40), positions[:count])
        assert masked[row, others].tolist() == tokens[row, others].tolist()
        unknown += (labels[:count] == UNK).sum()
    assert (unknown > 0) == predict_unk


def test_masking_leaves_its_input_as_it_is():
    tokens, present = some_rows(10, 20)
    before = tokens.copy()
    assert (mask(tokens, present)[0] != before).any()
    np.testing.assert_array_equal(tokens, before)


def test_any_words_of_a_row_are_equally_likely():
    tokens = np.array([[CLS, 10, 11, SEP, UNK, 12, 13, 14, 15, SEP, PAD, PAD]] * 6000, np.int32)
    _, positions, _, weights = mask(tokens, tokens != PAD, rate=2 / 6)
    assert weights.sum(axis=1).tolist() == [2] * 6000
    chosen = [tuple(sorted(row[:2])) for row in positions.tolist()]
    assert_uniform(chosen, list(itertools.combinations([1, 2, 5, 6, 7, 8], 2)))


def test_what_becomes_of_a_chosen_word():
    """80% <mask>, 10% any word of the vocabulary and never a special token, 10% as it was."""
    tokens = np.full((5000, 40), 50, np.int32)
    masked, positions, _, weights = mask(tokens, np.full(tokens.shape, True))
    assert weights.all() and positions.size >= 20_000
    seen = np.take_along_axis(masked, positions, axis=1).ravel()
    words = VOCAB_SIZE - NUM_SPECIAL
    assert_share((seen == MASK).sum(), seen.size, 0.8)
    assert_share((seen == 50).sum(), seen.size, 0.1 + 0.1 / words)
    replaced = seen[(seen != MASK) & (seen != 50)].tolist()
    assert_uniform(replaced, sorted(set(range(NUM_SPECIAL, VOCAB_SIZE)) - {50}))
    for slot in range(positions.shape[1]):  # whichever was chosen first
        assert_share((np.take_along_axis(masked, positions[:, [slot]], axis=1) == MASK).sum(), 5000, 0.8)


def test_special_tokens_may_have_any_numbers():
    """As in BERT's own vocabularies, where words stand before and after them."""
    berts = Vocabulary(30, pad=0, unk=10, cls=11, sep=12, mask=13)
    tokens = np.random.default_rng(0).integers(0, 30, (4000, 20)).astype(np.int32)
    tokens[:, 0] = berts.cls
    masked, positions, labels, weights = mask_tokens(
        tokens, tokens != 0, random_bits(0, np.arange(4000)), rate=0.3, predict_unk=False, vocabulary=berts
    )
    words = {*range(1, 10), *range(14, 30)}
    assert set(labels[weights > 0].tolist()) == words
    seen = np.take_along_axis(masked, positions, axis=1)[weights > 0]
    assert set(seen.tolist()) == words | {13}
    assert_share((seen == 13).sum(), seen.size, 0.8)
