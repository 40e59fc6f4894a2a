"""Packed rows: pairs are what they are alone, none is lost or doubled, and little is padding."""

import collections
import os

import jax
import numpy as np
import pytest
from drawn_params import drawn_params
from made_up import MAX_LENGTH, assert_same, joined, make, numbered, random_corpus, steps

from bertjax.config import BertConfig
from bertjax.data.batching import batches as batches_module
from bertjax.data.batching.batch import Batch
from bertjax.data.batching.packing import most_in_a_row, pack, spread
from bertjax.data.corpus.corpus import load_or_build
from bertjax.data.sources.wikitext import WikiText2
from bertjax.data.tokenizer.rules import CLS, NUM_SPECIAL, PAD, Vocabulary
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.models.bert import Bert
from bertjax.objectives.pretraining import batch_metrics

REAL = os.environ.get("BERTJAX_DATA")
ROW_LENGTH = 3 * MAX_LENGTH - 5
CORPUS = random_corpus(seed=1, paragraphs=300)
WINDOW = 8192  # pairs


def make_packed(corpus=CORPUS, **changes):
    return make(corpus, **{"row_length": ROW_LENGTH, "batch_size": 512} | changes)


def examples(batch):
    """Counts how often each pair comes, by all that a model is told of it, wherever in a row it is."""
    found = collections.Counter()
    for row in range(len(batch.tokens_bt)):
        b = Batch(*(field[row] for field in batch))
        for k in range(b.sequences_bt.max()):
            [here] = np.nonzero(b.sequences_bt == k + 1)
            start, end = here[0], here[-1] + 1
            assert len(here) == end - start and b.cls_positions_bk[k] == start and b.tokens_bt[start] == CLS
            [predicted] = np.nonzero(
                (b.mlm_weights_bp > 0) & (b.mlm_positions_bp >= start) & (b.mlm_positions_bp < end)
            )
            parts = [field[here] for field in (b.tokens_bt, b.segments_bt, b.positions_bt)]
            parts += [b.mlm_positions_bp[predicted] - start, b.mlm_labels_bp[predicted]]
            parts.append([b.nsp_labels_bk[k], b.nsp_weights_bk[k]])
            found[tuple(tuple(np.asarray(part, int).tolist()) for part in parts)] += 1
    return found


# Where sequences go.


def some_lengths(seed, count=3000, longest=60):
    return np.random.default_rng(seed).integers(5, longest + 1, count)


@pytest.mark.parametrize("slack", [0, 12])
@pytest.mark.parametrize("row_length, max_sequences", [(60, 1), (60, 4), (128, 3), (128, 5), (500, 11), (500, 100)])
def test_every_sequence_has_a_place_of_its_own(row_length, max_sequences, slack):
    lengths = some_lengths(seed=row_length)
    placement = pack(lengths, row_length=row_length, max_sequences=max_sequences, slack=slack)
    rows = collections.defaultdict(list)
    for row, offset, slot, length in zip(*placement, lengths, strict=True):
        rows[row].append((slot, offset, length))
    assert set(rows) == set(range(placement.num_rows))
    for row in rows.values():
        end = 0
        for expected_slot, (slot, offset, length) in enumerate(sorted(row)):
            assert (slot, offset) == (expected_slot, end)
            end += length
        assert end <= row_length and len(row) <= max_sequences


def rows_of_best_fit(lengths, row_length):
    """Best-fit decreasing, by a loop over sequences."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        room = min(fitting, default=row_length)
        if fitting:
            rooms.remove(room)
        rooms.append(room - length)
    return len(rooms)


@pytest.mark.parametrize("row_length, slack", [(128, 8), (160, 2), (256, 0)])
def test_it_packs_no_worse_than_best_fit(row_length, slack):
    lengths = some_lengths(seed=3, longest=64)
    num_rows = pack(lengths, row_length=row_length, max_sequences=99, slack=slack).num_rows
    assert lengths.sum() / row_length <= num_rows <= rows_of_best_fit(lengths, row_length)


def test_what_fits_exactly_is_found():
    lengths = np.array([7] * 50 + [6] * 50 + [5] * 50 + [9] * 100 + [18] * 20)
    assert pack(lengths, row_length=18, max_sequences=3, slack=0).num_rows == 50 + 50 + 20


def test_the_most_in_a_row():
    """Against all ways to fill it."""

    def most(room, sequences):
        fitting = [length for length in range(1, min(room, 7) + 1) if values[length]]
        return max((values[i] + most(room - i, sequences - 1) for i in fitting), default=0) if sequences else 0

    for seed in range(20):
        values = np.random.default_rng(seed).integers(0, 9, 8) * (np.arange(8) > 1)
        for max_sequences in (1, 2, 4):
            assert most_in_a_row(values, row_length=13, max_sequences=max_sequences) == most(13, max_sequences)


# Batches of them.


@pytest.mark.parametrize("mlm_probability", [0.15, 0.01, 1.0])
def test_types_and_shapes(mlm_probability):
    batches = make_packed(mlm_probability=mlm_probability)
    r, k, p = batches.num_rows, batches.max_sequences, batches.num_predictions
    shapes = [(r, ROW_LENGTH)] * 4 + [(r, p)] * 3 + [(r, k)] * 3
    for batch in [batches.batch_at(0), batches.batch_at(20), *batches.first_epoch()]:
        for field, expected, shape in zip(batch, make(CORPUS).batch_at(0), shapes, strict=True):
            assert (field.dtype, field.shape) == (expected.dtype, shape)


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
@pytest.mark.parametrize("mlm_probability, predict_unk", [(0.15, False), (0.5, True)])
def test_a_window_has_the_pairs_of_the_plain_rows(too_long, mlm_probability, predict_unk):
    settings = {"too_long": too_long, "mlm_probability": mlm_probability, "predict_unk": predict_unk, "batch_size": 512}
    packed, plain = make_packed(**settings), make(CORPUS, **settings)
    for first in (0, 48):
        assert examples(steps(packed, 16, first)) == examples(steps(plain, 16, first))
    batch = packed.batch_at(3)
    nothing = batch.sequences_bt == 0
    assert (batch.tokens_bt[nothing] == PAD).all()
    assert not batch.positions_bt[nothing].any() and not batch.segments_bt[nothing].any()


@pytest.mark.parametrize("unit", ["token", "word", "span"])
@pytest.mark.parametrize("objective", ["mlm+nsp", "mlm+sop", "mlm"])
@pytest.mark.parametrize("mlm_probability", [0.15, 1.0])
def test_no_prediction_is_lost_whatever_the_objective(objective, unit, mlm_probability, monkeypatch):
    """A row has room for all; at a rate of 1 none could be more."""
    monkeypatch.setattr(batches_module, "_AT_ONCE", 1024)
    inside = frozenset(range(NUM_SPECIAL, NUM_SPECIAL + len(CORPUS.ids), 3))
    settings = {"objective": objective, "mask_unit": unit, "mlm_probability": mlm_probability, "batch_size": 256}
    settings["vocabulary"] = Vocabulary(NUM_SPECIAL + len(CORPUS.ids), continuing=inside)
    packed, plain = steps(make_packed(**settings), 4), steps(make(CORPUS, **settings), 4)
    assert examples(packed) == examples(plain)
    in_pairs = packed.nsp_weights_bk.sum()
    assert in_pairs == (0 if objective == "mlm" else 1024)
    assert packed.segments_bt.any() == (in_pairs > 0)


def test_epochs_lose_and_double_no_pair():
    packed = make_packed(mlm_probability=0.01)
    pairs = packed.num_sequences
    windows = 3
    firsts = collections.Counter()
    for label in examples(steps(packed, 16 * windows)).elements():
        tokens, positions, labels = list(label[0]), label[3], label[4]
        for position, word in zip(positions, labels, strict=True):
            tokens[position] = word
        firsts[tokens[1]] += 1
    assert firsts.total() == WINDOW * windows and len(firsts) == pairs
    assert set(firsts.values()) <= {WINDOW * windows // pairs, -(-WINDOW * windows // pairs)}


def test_a_batch_depends_on_the_step_alone():
    batches = make_packed()
    later = batches.batch_at(1000)
    steps(batches, 3)
    assert_same(later, batches.batch_at(1000))
    assert_same(later, make_packed().batch_at(1000))


def test_the_first_epoch_is_the_plain_one():
    plain, packed = (joined(batches.first_epoch()) for batches in (make(CORPUS), make_packed(batch_size=7)))
    assert examples(packed) == examples(plain)
    assert len(packed.tokens_bt) < len(plain.tokens_bt) / 2


@pytest.mark.parametrize("batch_size", [7, 512])
def test_every_other_sequence_is_as_in_the_whole(batch_size):
    batches = make_packed(batch_size=batch_size)
    even, odd, whole = (examples(joined(batches.first_epoch(half=half))) for half in ("even", "odd", None))
    assert even + odd == whole
    assert (even.total(), odd.total()) == (-(-whole.total() // 2), whole.total() // 2)


def test_steps_of_one_row_have_the_pairs_of_the_plain_rows(monkeypatch):
    monkeypatch.setattr(batches_module, "_AT_ONCE", 512)
    packed = make_packed(batch_size=1)
    assert packed.num_rows == 1
    some = steps(packed, 512)
    assert examples(some) == examples(make(CORPUS, batch_size=512).batch_at(0))
    assert some.nsp_weights_bk.any(axis=1).all()


@pytest.mark.parametrize("max_length, row_length", [(24, 25), (24, 40), (24, 67), (24, 512), (64, 512)])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 16, 31, 64])
def test_a_step_always_has_its_pairs(batch_size, max_length, row_length):
    """As many as asked for, but for rows that have one more or fewer; of many rows, on average."""
    batches = make_packed(batch_size=batch_size, max_length=max_length, row_length=row_length)
    for number in (0, 7):
        window = batches._window(number)
        pairs_s = np.diff(window.bounds)
        assert pairs_s.sum() == len(window.sequences.keys_n) >= WINDOW
        if batches._evenly:
            in_row = collections.Counter(window.placement.row_n.tolist())
            assert len(in_row) == len(pairs_s) * batches.num_rows  # so any share of a step has some
            assert set(in_row.values()) <= {batch_size // batches.num_rows, -(-batch_size // batches.num_rows)}
            assert batch_size % batches.num_rows or set(pairs_s.tolist()) == {batch_size}
        assert 0.6 * batch_size < pairs_s.min() and pairs_s.max() < 1.5 * batch_size
        ends_n = window.placement.offset_n + window.sequences.lengths_n
        assert ends_n.max() <= row_length and window.sequences.lengths_n.max() == min(max_length, 43)


def test_rows_that_are_filled_evenly_are_about_as_long():
    lengths = some_lengths(seed=5, count=2000)
    placement = spread(lengths, num_rows=500)
    used = np.bincount(placement.row_n, lengths)
    assert set(np.bincount(placement.row_n)) == {4} and used.max() - used.min() <= 10
    spread_of_some = spread(lengths[:7], num_rows=3)
    assert sorted(np.bincount(spread_of_some.row_n)) == [2, 2, 3]


def test_what_is_left_of_an_epoch_has_the_rows_that_it_takes():
    """Two long and two short pairs share a row; of three long ones two."""
    settings = {"corpus": numbered([[11, 10]] * 4 + [[1, 1]] * 4), "objective": "mlm+sop", "batch_size": 4}
    num_steps = set()
    for seed in range(8):
        packed, plain = (make(**settings, seed=seed, row_length=row_length) for row_length in (62, None))
        assert packed.num_rows == 1
        for half in ("even", "odd"):
            batches = list(packed.first_epoch(half=half))
            assert examples(joined(batches)) == examples(joined(plain.first_epoch(half=half)))
            num_steps.add(len(batches))
    assert num_steps == {1, 2}


def test_no_step_is_given_the_long_or_the_short_ones():
    batches = make_packed()
    everything = steps(batches, 16)
    lengths = (everything.sequences_bt > 0).sum(axis=1) / np.maximum(everything.nsp_weights_bk.sum(axis=1), 1)
    for step in range(16):
        rows = lengths[step * batches.num_rows : (step + 1) * batches.num_rows]
        assert abs(rows.mean() - lengths.mean()) < 5 * lengths.std() / len(rows) ** 0.5


def test_rows_that_are_too_few_cost_words_but_no_pair():
    packed, plain = make_packed(), make(CORPUS, batch_size=512)
    packed.num_rows = int(0.8 * packed.num_rows)
    cut, whole = steps(packed, 16), steps(plain, 16)
    assert cut.tokens_bt.shape == (16 * packed.num_rows, ROW_LENGTH)
    assert cut.nsp_weights_bk.sum() == whole.nsp_weights_bk.sum() == WINDOW
    lengths = [sorted(len(example[0]) for example in examples(batch).elements()) for batch in (cut, whole)]
    longest = lengths[0][-1]
    assert longest < MAX_LENGTH and lengths[0] == [min(length, longest) for length in lengths[1]]
    assert_same(packed.batch_at(5), packed.batch_at(5))


def test_losses_are_those_of_plain_rows(monkeypatch):
    monkeypatch.setattr(batches_module, "_AT_ONCE", 512)
    corpus = random_corpus(seed=2)
    packed, plain = make_packed(corpus, batch_size=64), make(corpus, batch_size=64)
    model = Bert(
        BertConfig(
            vocab_size=len(corpus.ids) + 5,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            intermediate_size=32,
            max_position=MAX_LENGTH,
        )
    )
    params = drawn_params(model)
    metrics = jax.jit(lambda batch: batch_metrics(model, params, batch))

    def totals(batches):
        return jax.tree.map(lambda *parts: sum(map(float, parts)), *(metrics(batches.batch_at(i)) for i in range(8)))

    mine, others = totals(packed), totals(plain)
    for name in ("mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy"):
        assert mine[name].weight == others[name].weight > 0
        np.testing.assert_allclose(mine[name].total, others[name].total, rtol=1e-5)


@pytest.mark.skipif(REAL is None, reason="BERTJAX_DATA, the folder of the real text, is not set")
@pytest.mark.parametrize("too_long", ["truncate", "drop"])
@pytest.mark.parametrize("max_length, row_length", [(64, 128), (64, 160), (128, 256)])
def test_little_of_real_text_is_padding(tmp_path, max_length, row_length, too_long):
    source = WikiText2(["valid"], f"{REAL}/wikitext-2", tmp_path)
    words = (sentence for document in source.documents("valid") for paragraph in document for sentence in paragraph)
    tokenizer = Tokenizer.train(words, min_frequency=5)
    corpus = load_or_build(tmp_path, source.name, source.fingerprint("valid"), source.documents("valid"), tokenizer)
    settings = {"max_length": max_length, "too_long": too_long, "batch_size": 256}
    packed = make(corpus, row_length=row_length, **settings)
    fill = np.mean([(packed.batch_at(step).sequences_bt > 0).mean() for step in range(64)])
    assert fill > 0.95
    np.testing.assert_allclose(packed.fill, fill, rtol=0.01)
    slots = [steps(batches, 32).mlm_weights_bp.mean() for batches in (packed, make(corpus, **settings))]
    assert slots[0] > 0.75 > slots[1] + 0.05
