"""Batches against plain Python: a loop over rows, words popped one by one, counts of what chance does."""

import collections
import itertools
import sys

import numpy as np
import pytest

from bertjax.data.batches import Batch, PairBatches, lay_out, mask_tokens, random_below, random_bits, shuffled, truncate
from bertjax.data.corpus import Corpus
from bertjax.data.tokenizer import CLS, MASK, NUM_SPECIAL, PAD, SEP, UNK
from bertjax.errors import BertjaxError

MAX_LENGTH = 24


def numbered(paragraphs):
    """A corpus of sentences of these lengths without any word twice: each word tells where it is from."""
    lengths = [length for paragraph in paragraphs for length in paragraph]
    ids = np.arange(NUM_SPECIAL, NUM_SPECIAL + sum(lengths), dtype=np.uint16)
    sentences, paragraphs = (np.cumsum([0, *x]) for x in (lengths, map(len, paragraphs)))
    return Corpus("made-up/train", "", ids, sentences, paragraphs)


def random_corpus(seed, paragraphs=40, longest=20):
    rng = np.random.default_rng(seed)
    return numbered([rng.integers(1, longest + 1, rng.integers(1, 9)).tolist() for _ in range(paragraphs)])


CORPUS = random_corpus(seed=0)


def make(corpus=CORPUS, **changes):
    settings = {"batch_size": 16, "max_length": MAX_LENGTH, "vocab_size": NUM_SPECIAL + len(corpus.ids)}
    settings |= {"mlm_rate": 0.15, "predict_unk": False, "too_long": "truncate", "seed": 7}
    return PairBatches(corpus, **settings | changes)


def sentences_of(corpus):
    return [corpus.ids[i:j].tolist() for i, j in zip(corpus.sentences[:-1], corpus.sentences[1:], strict=True)]


def followed(corpus):
    """The sentences that another of the same paragraph follows."""
    bounds = zip(corpus.paragraphs[:-1], corpus.paragraphs[1:], strict=True)
    return [sentence for first, end in bounds for sentence in range(first, end - 1)]


def joined(some):
    return Batch(*(np.concatenate(field) for field in zip(*some, strict=True)))


def steps(batches, count, first=0):
    return joined([batches.batch_at(step) for step in range(first, first + count)])


def rows(batch, numbers):
    return Batch(*(field[numbers] for field in batch))


def assert_same(one, other):
    for name, a, b in zip(Batch._fields, one, other, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def unmasked(batch):
    """The rows' tokens with the labels put back, by a loop."""
    tokens = batch.tokens_bt.copy()
    places = (batch.mlm_positions_bp, batch.mlm_labels_bp, batch.mlm_weights_bp)
    for row, *predictions in zip(tokens, *places, strict=True):
        for position, label, weight in zip(*predictions, strict=True):
            if weight:
                row[position] = label
    return tokens


def pairs(corpus, batch):
    """The numbers of each row's two sentences, told by their first words."""
    number = {words[0]: i for i, words in enumerate(sentences_of(corpus))}
    tokens = unmasked(batch).tolist()
    return [(number[row[1]], number[row[row.index(SEP) + 1]]) for row in tokens]


def pop_from_the_longer(a, b, room):
    a, b = list(a), list(b)
    while len(a) + len(b) > room:
        (a if len(a) > len(b) else b).pop()
    return a, b


def assert_share(hits, trials, share):
    """Within five standard deviations of a binomial."""
    assert abs(hits - trials * share) < 5 * (trials * share * (1 - share)) ** 0.5


def assert_uniform(values, possible):
    """Chi-square within five of its standard deviations, and all that is possible and nothing else."""
    counts = collections.Counter(values)
    assert counts.keys() == set(possible)
    expected, freedom = len(values) / len(possible), len(possible) - 1
    assert expected > 10
    chi_square = sum((counts[value] - expected) ** 2 / expected for value in possible)
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


# The form of a batch.


@pytest.mark.parametrize("mlm_rate, p", [(0.15, 4), (0.01, 1), (1, 24)])
def test_types_and_shapes(mlm_rate, p):
    batches = make(mlm_rate=mlm_rate)
    for batch in [batches.batch_at(0), *batches.first_epoch()]:
        assert {name: (field.dtype, field.shape) for name, field in batch._asdict().items()} == {
            "tokens_bt": (np.int32, (16, 24)),
            "segments_bt": (np.int32, (16, 24)),
            "positions_bt": (np.int32, (16, 24)),
            "sequences_bt": (np.int32, (16, 24)),
            "mlm_positions_bp": (np.int32, (16, p)),
            "mlm_labels_bp": (np.int32, (16, p)),
            "mlm_weights_bp": (np.float32, (16, p)),
            "cls_positions_bk": (np.int32, (16, 1)),
            "nsp_labels_bk": (np.int32, (16, 1)),
            "nsp_weights_bk": (np.float32, (16, 1)),
        }


@pytest.mark.parametrize("max_length, too_long", [(5, "truncate"), (12, "truncate"), (24, "drop"), (60, "truncate")])
def test_rows_are_what_a_loop_makes_of_the_text(max_length, too_long):
    batch = steps(make(max_length=max_length, too_long=too_long), 20)
    text, tokens = sentences_of(CORPUS), unmasked(batch)
    for row, (first, second) in enumerate(pairs(CORPUS, batch)):
        a, b = pop_from_the_longer(text[first], text[second], max_length - 3)
        sequence = [CLS, *a, SEP, *b, SEP]
        padding = [0] * (max_length - len(sequence))
        assert tokens[row].tolist() == sequence + [PAD] * len(padding)
        assert batch.segments_bt[row].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1) + padding
        assert batch.positions_bt[row].tolist() == list(range(len(sequence))) + padding
        assert batch.sequences_bt[row].tolist() == [1] * len(sequence) + padding
        assert batch.nsp_labels_bk[row] == (second == first + 1)
    assert not batch.cls_positions_bk.any() and batch.nsp_weights_bk.all()


def test_truncation_is_popping_from_the_longer_side():
    lengths = np.array(list(itertools.product(range(1, 12), range(1, 12))))
    for room in range(2, 24):
        cut = np.stack(truncate(lengths[:, 0], lengths[:, 1], room), axis=1)
        popped = [[len(side) for side in pop_from_the_longer(range(a), range(b), room)] for a, b in lengths]
        np.testing.assert_array_equal(cut, popped)


def test_layout_of_any_two_pieces():
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 1000, 300).astype(np.uint16)
    len_a, len_b = rng.integers(1, 11, (2, 50))
    start_a, start_b = rng.integers(0, 290, (2, 50))
    tokens, segments, present = lay_out(ids, start_a, len_a, start_b, len_b, max_length=23)
    for row in range(50):
        a, b = (ids[start[row] :][: length[row]] for start, length in ((start_a, len_a), (start_b, len_b)))
        sequence = [CLS, *a, SEP, *b, SEP]
        padding = [PAD] * (23 - len(sequence))
        assert tokens[row].tolist() == sequence + padding
        assert segments[row].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1) + padding
        assert present[row].tolist() == [True] * len(sequence) + [False] * len(padding)


# A pure function of the step.


def test_a_batch_depends_on_the_step_alone():
    batches = make()
    later = batches.batch_at(1000)
    steps(batches, 5)
    assert_same(later, batches.batch_at(1000))
    assert_same(later, make().batch_at(1000))


@pytest.mark.parametrize("batch_size", [1, 8, 16, 48])
def test_examples_do_not_depend_on_the_batch_size(batch_size):
    assert_same(steps(make(batch_size=batch_size), 144 // batch_size), steps(make(batch_size=144), 1))


def test_seeds_differ():
    """In the order of the pairs, and, where there is but one, in the rest."""
    seeds, lonely = (0, 1, 2**32 - 1), numbered([[10, 10]])
    orders = [[first for first, _ in pairs(CORPUS, steps(make(seed=seed), 4))] for seed in seeds]
    labels = [steps(make(lonely, seed=seed), 4).nsp_labels_bk.tolist() for seed in seeds]
    masks = [steps(make(lonely, seed=seed), 4).mlm_positions_bp.tolist() for seed in seeds]
    for choices in (orders, labels, masks):
        assert choices[0] != choices[1] != choices[2] != choices[0]


def test_steps_may_be_large():
    assert set(pairs(CORPUS, make().batch_at(10**12))) != set(pairs(CORPUS, make().batch_at(10**12 + 1)))


# Epochs.


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
def test_an_epoch_has_each_adjacent_pair_once(too_long):
    batches = make(batch_size=7, too_long=too_long)
    length = [len(words) for words in sentences_of(CORPUS)]
    expected = [i for i in followed(CORPUS) if too_long == "truncate" or length[i] + length[i + 1] <= MAX_LENGTH - 3]
    n = batches.num_pairs
    assert n == len(expected) and n % 7 != 0
    firsts = [first for first, _ in pairs(CORPUS, steps(batches, 3 * n // 7 + 1))]
    epochs = [firsts[epoch * n : (epoch + 1) * n] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == expected
    for one, other in itertools.combinations([expected, *epochs], 2):  # no order comes twice, nor is it the text's
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 10


def test_every_epoch_has_new_strangers_and_new_masks():
    batches = make(batch_size=make().num_pairs, too_long="truncate")
    seen = []
    for epoch in range(2):
        batch = batches.batch_at(epoch)
        masked = [frozenset(row) for row in batch.mlm_positions_bp.tolist()]
        seen.append({pair[0]: (pair[1], mask) for pair, mask in zip(pairs(CORPUS, batch), masked, strict=True)})
    once, again = seen
    assert once.keys() == again.keys()
    strange = [i for i in once if once[i][0] != i + 1 != again[i][0]]
    assert len(strange) > 20 and sum(once[i][0] == again[i][0] for i in strange) < 5
    same_pair = [i for i in once if once[i][0] == again[i][0]]
    assert len(same_pair) > 20 and sum(once[i][1] == again[i][1] for i in same_pair) < 5


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


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
def test_the_first_epoch_is_each_pair_once_and_then_empty_rows(too_long):
    batches = make(batch_size=7, too_long=too_long)
    whole = list(batches.first_epoch())
    n = batches.num_pairs
    assert len(whole) == -(-n // 7)
    assert_same(joined(whole), joined(make(batch_size=7, too_long=too_long).first_epoch()))
    batch = joined(whole)
    assert_same(rows(batch, slice(n)), rows(steps(batches, len(whole)), slice(n)))
    assert batch.nsp_weights_bk.sum() == n
    empty = rows(batch, slice(n, None))
    assert len(empty.tokens_bt) == 7 * len(whole) - n > 0
    for field in (empty.nsp_weights_bk, empty.mlm_weights_bp, empty.mlm_labels_bp, empty.mlm_positions_bp):
        assert not field.any()
    assert not empty.sequences_bt.any() and not empty.positions_bt.any()


# The next sentence or a stranger.


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
def test_half_of_the_seconds_are_the_next_ones(too_long):
    batch = steps(make(batch_size=512, too_long=too_long), 8)
    drawn = pairs(CORPUS, batch)
    is_next = batch.nsp_labels_bk[:, 0]
    assert_share(is_next.sum(), len(is_next), 0.5)
    for (first, second), label in zip(drawn, is_next, strict=True):
        assert label == (second == first + 1)  # so a stranger never is the next one


def test_a_stranger_is_any_sentence_that_fits_but_the_next():
    corpus = numbered([[3, 4], [6, 2, 5], [1, 7, 9]])
    length = [len(words) for words in sentences_of(corpus)]
    batch = steps(make(corpus, max_length=13, too_long="drop", batch_size=6000), 1)
    strangers = collections.defaultdict(list)
    for first, second in pairs(corpus, batch):
        assert length[first] + length[second] <= 10
        if second != first + 1:
            strangers[first].append(second)
    assert strangers.keys() == {0, 2, 3, 5}  # 7 and 9 are too long together
    for first, drawn in strangers.items():
        fitting = [i for i in range(8) if length[first] + length[i] <= 10 and i != first + 1]
        assert_uniform(drawn, fitting)


def test_where_no_stranger_fits_it_is_the_next():
    corpus = numbered([[9, 2], [9, 9]])
    batch = steps(make(corpus, max_length=14, too_long="drop"), 4)
    assert set(pairs(corpus, batch)) == {(0, 1)}
    assert batch.nsp_labels_bk.all()


@pytest.mark.parametrize(
    "paragraphs, too_long", [([[3], [4], [5]], "truncate"), ([[20, 2], [1]], "drop"), ([[22]], "drop")]
)
def test_no_two_sentences(paragraphs, too_long):
    with pytest.raises(BertjaxError) as caught:
        make(numbered(paragraphs), too_long=too_long)
    assert "made-up/train" in str(caught.value) and "data.max_length=24" in str(caught.value)
    assert "\n" not in str(caught.value)


# Masks.

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
    return mask_tokens(tokens, present, keys, rate=rate, predict_unk=predict_unk, vocab_size=vocab_size)


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


def test_batches_mask_by_the_same_rule():
    batch = steps(make(batch_size=512), 20)
    chosen = batch.mlm_weights_bp > 0
    tokens = unmasked(batch)
    words = (tokens >= NUM_SPECIAL).sum(axis=1)
    np.testing.assert_array_equal(chosen.sum(axis=1), [max(1, round(0.15 * n)) for n in words.tolist()])
    seen = np.take_along_axis(batch.tokens_bt, batch.mlm_positions_bp, axis=1)
    assert chosen.sum() >= 20_000
    assert_share((seen == MASK)[chosen].sum(), chosen.sum(), 0.8)
    assert (batch.mlm_labels_bp[chosen] >= NUM_SPECIAL).all()
    assert (batch.tokens_bt[:, 0] == CLS).all()  # where the empty predictions stand


def test_a_row_of_unknown_words_has_nothing_to_predict():
    corpus = numbered([[4, 4]])._replace(ids=np.full(8, UNK, np.uint16))
    batch = make(corpus, vocab_size=50).batch_at(0)
    assert not batch.mlm_weights_bp.any() and (batch.tokens_bt != MASK).all()
    assert make(corpus, vocab_size=50, predict_unk=True).batch_at(0).mlm_weights_bp.any(axis=1).all()


def test_random_below():
    assert_uniform(random_below(7, random_bits(5, np.arange(2000))).tolist(), range(7))
    extremes = np.array([0, 2**64 - 1], np.uint64)
    for end in (1, 7, 2**32 - 1):
        assert random_below(end, extremes).tolist() == [0, end - 1]


# Speed, without a clock.


def test_no_python_runs_once_a_row():
    """The calls that a batch makes are as many for 512 rows as for 8; 256 pairs, so that no shuffle walks on."""
    corpus = numbered([[3] * 257])
    calls = collections.Counter()
    for batch_size in (8, 512):
        batches = make(corpus, batch_size=batch_size)
        batches.batch_at(0)  # imports and caches

        def count(frame, event, argument, batch_size=batch_size):
            calls[batch_size] += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            batches.batch_at(1)
        finally:
            sys.setprofile(None)
    assert batches.num_pairs == 256
    assert calls[8] == calls[512] > 0
