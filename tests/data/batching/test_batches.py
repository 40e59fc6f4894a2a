"""Batches against plain Python: a loop over rows, words popped one by one."""

import collections
import itertools
import sys

import numpy as np
import pytest
from made_up import (
    CORPUS,
    MAX_LENGTH,
    assert_same,
    assert_share,
    followed,
    joined,
    make,
    numbered,
    pairs,
    pop_from_the_longer,
    rows,
    sentences_of,
    steps,
    unmasked,
)

from bertjax.data.batching import batches as batches_room
from bertjax.data.batching.batch import Batch
from bertjax.data.batching.masking import mask_tokens as mask
from bertjax.data.batching.sequences import lay_out
from bertjax.data.tokenizer.rules import CLS, MASK, NUM_SPECIAL, PAD, SEP, UNK, Vocabulary

# The form of a batch.


@pytest.mark.parametrize("mlm_probability, p", [(0.15, 4), (0.01, 1), (1, 24)])
def test_types_and_shapes(mlm_probability, p):
    batches = make(mlm_probability=mlm_probability)
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


@pytest.mark.parametrize("vocabulary", [Vocabulary(50), Vocabulary(50, cls=30, sep=2, unk=3, mask=4)])
def test_layout_of_any_two_pieces(vocabulary):
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 1000, 300).astype(np.uint16)
    len_a, len_b = rng.integers(1, 11, (2, 50))
    start_a, start_b = rng.integers(0, 290, (2, 50))
    tokens, segments, present = lay_out(ids, start_a, len_a, start_b, len_b, max_length=23, vocabulary=vocabulary)
    for row in range(50):
        a, b = (ids[start[row] :][: length[row]] for start, length in ((start_a, len_a), (start_b, len_b)))
        sequence = [vocabulary.cls, *a, vocabulary.sep, *b, vocabulary.sep]
        padding = [PAD] * (23 - len(sequence))
        assert tokens[row].tolist() == sequence + padding
        assert segments[row].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1) + padding
        assert present[row].tolist() == [True] * len(sequence) + [False] * len(padding)


def test_layout_of_one_piece():
    ids = np.arange(100, 200)
    nothing = np.zeros(3, int)
    tokens, segments, present = lay_out(
        ids, np.array([0, 50, 97]), np.array([5, 1, 3]), nothing, nothing, max_length=7, vocabulary=Vocabulary(200)
    )
    assert tokens.tolist() == [
        [CLS, 100, 101, 102, 103, 104, SEP],
        [CLS, 150, SEP, 0, 0, 0, 0],
        [CLS, 197, 198, 199, SEP, 0, 0],
    ]
    assert not segments.any() and present.sum(axis=1).tolist() == [7, 3, 5]


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


@pytest.mark.parametrize("row_length", [None, 3 * MAX_LENGTH])
def test_some_rows_are_those_of_the_whole_batch_and_the_only_ones_made(row_length, monkeypatch):
    made = []
    monkeypatch.setattr(
        batches_room,
        "mask_tokens",
        lambda tokens, *args, **rest: made.append(len(tokens)) or mask(tokens, *args, **rest),
    )
    batches = make(row_length=row_length)
    empty = Batch(*(np.zeros_like(field[:5]) for field in batches.batch_at(0)))
    wholes = [batches.batch_at(0), batches.batch_at(3), *batches.first_epoch()]
    for first, end in ((0, batches.num_rows + 5), (2, 5), (batches.num_rows - 1, batches.num_rows + 5), (1, 1)):
        some = range(first, end)
        made.clear()
        parts = [batches.batch_at(0, some), batches.batch_at(3, some), *batches.first_epoch(some)]
        assert len(parts) == len(wholes)
        for part, whole, pairs_made in zip(parts, wholes, made, strict=True):
            expected = rows(joined([whole, empty]), slice(first, end))
            assert_same(part, expected)
            assert pairs_made == np.count_nonzero(expected.nsp_weights_bk)


@pytest.mark.parametrize("row_length", [None, 3 * MAX_LENGTH])
def test_a_growing_batch_is_a_share_of_a_whole_one(row_length):
    whole, growing = make(row_length=row_length), make(row_length=row_length, warmup_steps=9)
    sizes = [-(-whole.num_rows // parts) for parts in (8, 4, 2)]
    shares = [(0, 0, sizes[0]), (0, 1, sizes[0]), (0, 2, sizes[0]), *((1, part, sizes[1]) for part in range(3))]
    shares += [(2, 0, sizes[2]), (2, 1, sizes[2]), (3, 0, sizes[2]), (4, 0, whole.num_rows), (5, 0, whole.num_rows)]
    empty = Batch(*(np.zeros_like(field) for field in whole.batch_at(0)))
    for step, (batch, part, size) in enumerate(shares):
        expected = rows(joined([whole.batch_at(batch), empty]), slice(part * size, (part + 1) * size))
        assert_same(growing.batch_at(step), expected)
        assert growing.num_rows_at(step) == size
        # Devices that do not divide it have empty rows, not those of the next step.
        assert_same(growing.batch_at(step, range(1, size + 3)), rows(joined([expected, empty]), slice(1, size + 3)))
    of_batch_2 = [growing.batch_size_at(step) for step in (6, 7)]
    assert sum(of_batch_2) == pytest.approx(16) and growing.batch_size_at(9) == 16
    for one, other in zip(growing.first_epoch(), whole.first_epoch(), strict=True):
        assert_same(one, other)


def test_seeds_differ():
    """They differ in the order of the pairs, and, where there is but one, in the rest."""
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
    n = batches.num_sequences
    assert n == len(expected) and n % 7 != 0
    firsts = [first for first, _ in pairs(CORPUS, steps(batches, 3 * n // 7 + 1))]
    epochs = [firsts[epoch * n : (epoch + 1) * n] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == expected
    for one, other in itertools.combinations([expected, *epochs], 2):  # no order comes twice, nor is it the text's
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 10


def test_every_epoch_has_new_strangers_and_new_masks():
    batches = make(batch_size=make().num_sequences, too_long="truncate")
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


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
def test_the_first_epoch_is_each_pair_once_and_then_empty_rows(too_long):
    batches = make(batch_size=7, too_long=too_long)
    whole = list(batches.first_epoch())
    n = batches.num_sequences
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


# Masks.


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


@pytest.mark.parametrize("row_length", [None, 64])
@pytest.mark.parametrize("start, end", [(0.4, 0.1), (0.1, 0.4)])
def test_the_rate_goes_evenly_to_its_last_one(start, end, row_length):
    moving = make(mlm_probability=start, mlm_probability_end=end, steps=31, batch_size=64, row_length=row_length)
    assert [moving.mlm_probability_at(step) for step in (0, 10, 20, 30, 99)] == pytest.approx(
        [start, start + (end - start) / 3, end + (start - end) / 3, end, end]
    )
    shapes = {step: [field.shape for field in moving.batch_at(step)] for step in (0, 15, 30, 40)}
    assert shapes[0] == shapes[15] == shapes[30] == shapes[40]
    largest = make(mlm_probability=max(start, end), batch_size=64, row_length=row_length)
    assert moving.num_predictions == largest.num_predictions
    for step, rate in ((0, start), (15, 0.25), (30, end), (40, end)):
        batch, still = (
            moving.batch_at(step),
            make(mlm_probability=rate, batch_size=64, row_length=row_length).batch_at(step),
        )
        assert batch.mlm_weights_bp.sum() == still.mlm_weights_bp.sum()
        np.testing.assert_array_equal(batch.tokens_bt, still.tokens_bt)
        assert_same(
            batch,
            make(
                mlm_probability=start, mlm_probability_end=end, steps=31, batch_size=64, row_length=row_length
            ).batch_at(step),
        )
    for batch, still in zip(
        moving.first_epoch(),
        make(mlm_probability=start, batch_size=64, row_length=row_length).first_epoch(),
        strict=True,
    ):
        np.testing.assert_array_equal(batch.tokens_bt, still.tokens_bt)


def test_a_row_of_unknown_words_has_nothing_to_predict():
    corpus = numbered([[4, 4]])._replace(ids=np.full(8, UNK, np.uint16))
    batch = make(corpus, vocabulary=Vocabulary(50)).batch_at(0)
    assert not batch.mlm_weights_bp.any() and (batch.tokens_bt != MASK).all()
    assert make(corpus, vocabulary=Vocabulary(50), predict_unk=True).batch_at(0).mlm_weights_bp.any(axis=1).all()


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
    assert batches.num_sequences == 256
    assert calls[8] == calls[512] > 0
