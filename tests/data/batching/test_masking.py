"""Masks against plain Python: a loop over rows, counts of what chance does."""

import collections
import itertools

import numpy as np
import pytest
from made_up import assert_share, assert_uniform

from bertjax.data.batching import masking
from bertjax.data.batching.masking import mask_tokens, num_to_predict
from bertjax.data.batching.random import random_bits
from bertjax.data.batching.spans import LONGEST, some_spans
from bertjax.data.tokenizer.rules import CLS, MASK, NUM_SPECIAL, PAD, SEP, UNK, Vocabulary

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
    """BERT's own vocabularies have words before and after them."""
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


# Words and spans, over 100,000 tokens.

PIECES = Vocabulary(VOCAB_SIZE, continuing=frozenset(range(70, VOCAB_SIZE)))


def pieces_of_words(count=1000, t=128, seed=0):
    """`<cls> A <sep> B <sep>` and padding, a third of the tokens going on with a word, some of them unknown."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(NUM_SPECIAL, VOCAB_SIZE, (count, t)).astype(np.int32)
    tokens[rng.random((count, t)) < 0.03] = UNK
    length, middle = rng.integers(t // 2, t + 1, count), rng.integers(2, t // 2 - 2, count)
    tokens[:, 0] = CLS
    tokens[np.arange(count), middle] = tokens[np.arange(count), length - 1] = SEP
    present = np.arange(t) < length[:, None]
    return tokens * present, present


def words_of(row, present):
    """Positions of each word's tokens, by a loop."""
    words = []
    for i, token in enumerate(row.tolist()):
        if token < NUM_SPECIAL or not present[i]:
            continue
        if token in PIECES.continuing and words and words[-1][-1] == i - 1:
            words[-1].append(i)
        else:
            words.append([i])
    return words


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.5, 1.0])
@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_what_each_unit_really_does(unit, rate):
    tokens, present = pieces_of_words(1600)
    keys = random_bits(0, np.arange(len(tokens)))
    masked, positions, labels, weights = mask_tokens(
        tokens, present, keys, rate=rate, unit=unit, predict_unk=False, vocabulary=PIECES
    )
    assert present.sum() > 100_000
    chosen = np.zeros(tokens.shape, bool)
    chosen[np.nonzero(weights)[0], positions[weights > 0]] = True
    assert chosen.sum() == weights.sum()  # none twice
    is_word = present & (tokens >= NUM_SPECIAL)
    assert (masked == tokens)[~chosen].all() and not chosen[~is_word].any()
    assert (labels == np.take_along_axis(tokens, positions, axis=1) * (weights > 0)).all()

    enough = num_to_predict(is_word.sum(axis=1), rate)
    assert (chosen.sum(axis=1) <= enough).all() and (chosen.sum(axis=1) >= 1).all()
    share = chosen.sum() / is_word.sum()
    assert rate * (0.97 if unit != "token" else 0.999) < share < rate * 1.02
    if unit == "token":
        assert (chosen.sum(axis=1) == enough).all()
    else:
        cut = sum(
            any(0 < chosen[i, word].sum() < len(word) for word in words_of(tokens[i], present[i])) for i in range(1600)
        )
        assert cut == 0

    if unit != "span":  # each token has a fate of its own
        seen, was = masked[chosen], tokens[chosen]
        other = 1 - 1 / (VOCAB_SIZE - NUM_SPECIAL)
        assert_share((seen == MASK).sum(), seen.size, 0.8)
        assert_share(((seen != MASK) & (seen != was)).sum(), seen.size, 0.1 * other)
        assert_share((seen == was).sum(), seen.size, 0.2 - 0.1 * other)
        assert (seen >= MASK).all()


def test_any_words_are_equally_likely_whatever_their_length():
    a, b, c = [10], [11, 80, 81], [12, 82]
    tokens = np.array([[CLS, *a, *b, SEP, *c, SEP, PAD]] * 6000, np.int32)
    keys = random_bits(4, np.arange(6000))
    _, positions, _, weights = mask_tokens(
        tokens, tokens != PAD, keys, rate=0.5, unit="word", predict_unk=False, vocabulary=PIECES
    )
    # Of 6 tokens 3: b alone where it is first; else a and c, after which it does not fit.
    chosen = [tuple(row[: int(n)]) for row, n in zip(positions.tolist(), weights.sum(axis=1), strict=True)]
    assert set(chosen) == {(2, 3, 4), (1, 6, 7)}
    assert_share(chosen.count((2, 3, 4)), 6000, 1 / 3)


@pytest.mark.parametrize("unit", ["word", "span"])
def test_where_every_word_is_too_long_the_first_tokens_of_one_are_predicted(unit):
    tokens = np.array([[CLS, 10, 80, 81, SEP, 11, 82, 83, SEP, PAD]] * 1000, np.int32)
    keys = random_bits(4, np.arange(1000))
    _, positions, _, weights = mask_tokens(
        tokens, tokens != PAD, keys, rate=0.3, unit=unit, predict_unk=False, vocabulary=PIECES
    )
    assert weights.sum(axis=1).tolist() == [2] * 1000
    chosen = [tuple(row[:2]) for row in positions.tolist()]
    assert_uniform(chosen, [(1, 2), (5, 6)])


def test_as_many_words_of_one_token_are_chosen_as_tokens():
    """A tokenizer of kind "word" has such a vocabulary."""
    tokens, present = some_rows(400, 40)
    keys = random_bits(0, np.arange(400))
    settings = {"rate": 0.3, "predict_unk": True, "vocabulary": Vocabulary(VOCAB_SIZE)}
    of_tokens, of_words, of_spans = (
        mask_tokens(tokens, present, keys, unit=unit, **settings)[3] for unit in ("token", "word", "span")
    )
    np.testing.assert_array_equal(of_tokens, of_words)
    np.testing.assert_array_equal(of_tokens, of_spans)


def test_a_span_has_one_fate():
    """80% of spans are hidden, 10% are random words, 10% stay: over 100,000 tokens."""
    tokens, present = pieces_of_words(1600)
    keys = random_bits(0, np.arange(len(tokens)))
    masked, *_ = mask_tokens(tokens, present, keys, rate=0.15, unit="span", predict_unk=False, vocabulary=PIECES)
    is_word = present & (tokens >= NUM_SPECIAL)
    spans = some_spans(
        *(is_word, is_word & ~np.isin(tokens, list(PIECES.continuing)), num_to_predict(is_word.sum(axis=1), 0.15)),
        *(keys, LONGEST),
        order=masking._CHOICE,
        length=masking._LENGTH,
    )
    assert (masked == tokens)[spans == 0].all()
    fates = collections.Counter()
    for row, number in {(row, spans[row, place]) for row, place in zip(*np.nonzero(spans), strict=True)}:
        here = spans[row] == number
        seen, was = masked[row, here], tokens[row, here]
        assert (seen == MASK).all() or (seen > MASK).all()
        if len(seen) > 1:  # a random token now and then is the one that was there, two of them hardly ever
            fates["hidden" if seen[0] == MASK else "kept" if (seen == was).all() else "random"] += 1
    assert fates.total() > 3000
    for fate, share in (("hidden", 0.8), ("random", 0.1), ("kept", 0.1)):
        assert_share(fates[fate], fates.total(), share)
