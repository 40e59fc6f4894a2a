"""Batches of labelled sequences: each once an epoch, all in rows of one shape, and the same from whichever rows."""

import numpy as np
import pytest

from bertjax.data.batching.labelled import LabelledBatch, LabelledBatches
from bertjax.data.examples import Examples


def examples(lengths: list[int]) -> Examples:
    """Sequences of which each token is the sequence's number, from 1 on, and the label that number modulo 7."""
    numbers = np.arange(1, len(lengths) + 1, dtype=np.int32)
    starts_n = np.concatenate(([0], np.cumsum(lengths)))
    len_a_n = np.array([1 + length // 2 for length in lengths], np.int32)
    return Examples("made", "", np.repeat(numbers, lengths), starts_n, len_a_n, numbers % 7)


def some(count: int, seed: int = 0) -> list[int]:
    """Lengths as those of sentences are: most short, a few long."""
    return (3 + np.random.default_rng(seed).geometric(0.07, count).clip(max=61)).tolist()


def read(batch: LabelledBatch, lengths: list[int]) -> list[int]:
    """The numbers of a batch's sequences, each found whole, in its own place, with its own label."""
    found = []
    for row in range(len(batch.tokens_bt)):
        for slot in np.flatnonzero(batch.weights_bk[row]):
            at = np.flatnonzero(batch.sequences_bt[row] == slot + 1)
            number = int(batch.tokens_bt[row, at[0]])
            assert (batch.tokens_bt[row, at] == number).all() and len(at) == lengths[number - 1]
            assert batch.positions_bt[row, at].tolist() == list(range(len(at)))
            assert batch.segments_bt[row, at].sum() == len(at) - (1 + len(at) // 2)
            assert batch.cls_positions_bk[row, slot] == at[0] and batch.labels_bk[row, slot] == number % 7
            found.append(number)
    assert np.count_nonzero(batch.sequences_bt) == sum(lengths[number - 1] for number in found)
    assert all(not field[batch.sequences_bt == 0].any() for field in batch[:4])
    return found


@pytest.mark.parametrize("count, size", [(100, 16), (96, 16), (5, 16), (1, 1), (33, 32), (500, 7)])
def test_an_epoch_has_each_example_once_in_batches_of_one_shape(count: int, size: int) -> None:
    lengths = some(count)
    batches = LabelledBatches(examples(lengths), batch_size=size, seed=3)
    seen = []
    for step in range(2 * batches.steps_in_epoch):
        batch = batches.batch_at(step)
        assert batch.tokens_bt.shape == (batches.num_rows, batches.row_length)
        assert batch.weights_bk.shape == (batches.num_rows, batches.max_sequences)
        assert batch.weights_bk.sum() == batches.batch_size_at(step)
        seen.append(read(batch, lengths))
    epochs = seen[: batches.steps_in_epoch], seen[batches.steps_in_epoch :]
    assert all(sorted(sum(epoch, [])) == list(range(1, count + 1)) for epoch in epochs)
    assert [len(batch) for batch in seen[: count // size]] == [size] * (count // size)
    assert count < 16 or epochs[0] != epochs[1]
    assert [read(batch, lengths) for batch in batches.first_epoch()] == epochs[0]


def test_a_batch_is_of_its_step_alone_and_its_rows_can_be_made_apart() -> None:
    lengths = some(200)
    batches, again = (LabelledBatches(examples(lengths), batch_size=32, seed=1) for _ in range(2))
    for step in (9, 3, 6):  # 6 is the last one of an epoch, which is not whole
        whole = again.batch_at(step)
        parts = [batches.batch_at(step, range(n, n + 2)) for n in range(0, whole.tokens_bt.shape[0], 2)]
        for field, pieces in zip(whole, zip(*parts, strict=True), strict=True):
            joined = np.concatenate(pieces)
            np.testing.assert_array_equal(joined[: len(field)], field)
            assert not joined[len(field) :].any()
    other = LabelledBatches(examples(lengths), batch_size=32, seed=2)
    assert not np.array_equal(other.batch_at(0).tokens_bt, whole.tokens_bt)


def test_rows_are_nearly_full_and_no_longer_than_asked_for() -> None:
    lengths = some(4000)
    batches = LabelledBatches(examples(lengths), batch_size=32, seed=0)
    assert batches.fill > 0.89
    short = LabelledBatches(examples(lengths), batch_size=32, row_length=64, seed=0)
    assert short.row_length == 64 == max(lengths) and short.fill > 0.85
    many = LabelledBatches(examples(lengths), batch_size=500, seed=0)
    assert many.fill > 0.97  # there is a short one for each gap


def test_every_batch_has_its_share_of_all_lengths() -> None:
    lengths = some(1000)
    batches = LabelledBatches(examples(lengths), batch_size=50, seed=0)
    totals = [np.count_nonzero(batch.sequences_bt) for batch in batches.first_epoch()]
    assert max(totals) - min(totals) <= max(lengths) - min(lengths)


@pytest.mark.parametrize("shares", [(0.9, 0.1), (0.6, 0.3, 0.07, 0.03), (0.4, 0.2, 0.2, 0.1, 0.1)])
def test_balanced_batches_have_their_share_of_all_labels(shares: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    made = examples(some(510))
    made = made._replace(labels_n=rng.choice(len(shares), 510, p=shares).astype(np.int32))
    plain, balanced = (LabelledBatches(made, batch_size=16, seed=3, balance=balance) for balance in (False, True))

    def counts(batches: LabelledBatches, epoch: int) -> np.ndarray:
        """How many examples of a whole batch have each label, [s, c]."""
        first = epoch * batches.steps_in_epoch
        numbers = [batches.numbers_at(step) for step in range(first, first + batches.steps_in_epoch)]
        chosen = [of_step[of_step >= 0] for of_step in numbers]
        assert sorted(np.concatenate(chosen).tolist()) == list(range(510))  # each once
        return np.array([np.bincount(made.labels_n[some], minlength=len(shares)) for some in chosen[:-1]])

    spread = counts(balanced, 1).std(0)
    assert np.ptp(counts(balanced, 1)[:, -1]) <= 1 and np.ptp(counts(balanced, 1), axis=0).max() <= 3
    assert (spread < 0.6 * counts(plain, 1).std(0)).all()
    assert (balanced.num_rows, balanced.row_length) == (plain.num_rows, plain.row_length)
    orders = [balanced.numbers_at(step).tolist() for step in (0, balanced.steps_in_epoch)]
    assert (
        orders[0] != orders[1]
        and orders[0] == LabelledBatches(made, batch_size=16, seed=3, balance=True).numbers_at(0).tolist()
    )


def test_balanced_batches_of_examples_with_several_labels() -> None:
    made = examples(some(96))
    sets = np.array([[0, 0], [1, 0], [1, 1]], np.float32)
    made = made._replace(labels_n=sets[np.arange(96) % 12 // 10 + np.arange(96) % 12 // 11])
    batches = LabelledBatches(made, batch_size=12, seed=0, balance=True)
    told = [batches.batch_at(step) for step in range(8)]
    assert [batch.labels_bk[batch.weights_bk > 0].sum(0).tolist() for batch in told] == [[2, 1]] * 8
