"""Batches of tuples of texts: each once an epoch, all in rows of one shape, and the same from whichever rows."""

import numpy as np
import pytest

from bertjax.data.batching.tuples import TupleBatch, TupleBatches
from bertjax.data.tuples import Tuples


def examples(count: int, texts: int, seed: int = 0) -> Tuples:
    """Of each text every token is its number, from 1 on; some examples lack their last hard negatives."""
    rng = np.random.default_rng(seed)
    lengths = (3 + rng.geometric(0.07, count * texts)).clip(max=61)
    texts_nr = np.arange(count * texts).reshape(count, texts)
    texts_nr[rng.random((count, texts)) < (np.arange(texts) > 1) * 0.3] = -1
    starts_m = np.concatenate(([0], np.cumsum(lengths)))
    ids = np.repeat(np.arange(1, count * texts + 1, dtype=np.int32), lengths)
    return Tuples("made", "", ids, starts_m, texts_nr, np.arange(count, dtype=np.float32))


def read(batch: TupleBatch, made: Tuples) -> list[int]:
    """The numbers of a batch's examples, each text found whole, in its own place."""
    n, r = batch.weights_bq.size, batch.kinds_bqr.shape[-1]
    texts = np.full(n * r, -1)
    for row, slot in zip(*np.nonzero(batch.texts_bk), strict=True):
        at = np.flatnonzero(batch.sequences_bt[row] == slot + 1)
        text = int(batch.tokens_bt[row, at[0]]) - 1
        assert (batch.tokens_bt[row, at] == text + 1).all() and len(at) == made.lengths_m[text]
        assert batch.positions_bt[row, at].tolist() == list(range(len(at)))
        assert texts[batch.texts_bk[row, slot] - 1] == -1
        texts[batch.texts_bk[row, slot] - 1] = text
    assert all(not field[batch.sequences_bt == 0].any() for field in batch[:4])
    kinds_nr, there_n = batch.kinds_bqr.reshape(n, r), batch.weights_bq.ravel() > 0
    np.testing.assert_array_equal(texts.reshape(n, r) + 1, kinds_nr)
    assert not kinds_nr[~there_n].any() and not batch.scores_bq.ravel()[~there_n].any()
    numbers = (kinds_nr[there_n, 0] - 1) // r
    np.testing.assert_array_equal(made.texts_nr[numbers] + 1, kinds_nr[there_n])
    np.testing.assert_array_equal(batch.scores_bq.ravel()[there_n], numbers)
    return numbers.tolist()


@pytest.mark.parametrize("count, texts, size", [(100, 2, 16), (96, 3, 16), (5, 2, 16), (1, 2, 1), (300, 4, 7)])
def test_an_epoch_has_each_example_once_in_batches_of_one_shape(count: int, texts: int, size: int) -> None:
    made = examples(count, texts)
    batches = TupleBatches(made, batch_size=size, seed=3)
    seen = []
    for step in range(2 * batches.steps_in_epoch):
        batch = batches.batch_at(step)
        assert batch.tokens_bt.shape == (batches.num_rows, batches.row_length)
        assert batch.texts_bk.shape == (batches.num_rows, batches.max_sequences)
        assert batch.weights_bq.sum() == batches.batch_size_at(step)
        seen.append(read(batch, made))
        assert seen[-1] == batches.numbers_at(step).tolist()
    epochs = seen[: batches.steps_in_epoch], seen[batches.steps_in_epoch :]
    assert all(sorted(sum(epoch, [])) == list(range(count)) for epoch in epochs)
    assert [len(batch) for batch in seen[: count // size]] == [size] * (count // size)
    assert count < 16 or epochs[0] != epochs[1]
    assert [read(batch, made) for batch in batches.first_epoch()] == epochs[0]


def test_a_batch_is_of_its_step_alone_and_its_rows_can_be_made_apart() -> None:
    made = examples(200, 3)
    batches, again = (TupleBatches(made, batch_size=32, seed=1) for _ in range(2))
    for step in (9, 3, 6):  # 6 is the last one of an epoch, which is not whole
        whole = again.batch_at(step)
        parts = [batches.batch_at(step, range(n, n + 2)) for n in range(0, len(whole.tokens_bt), 2)]
        for field, pieces in zip(whole, zip(*parts, strict=True), strict=True):
            joined = np.concatenate(pieces)
            np.testing.assert_array_equal(joined[: len(field)], field)
            assert not joined[len(field) :].any()
    other = TupleBatches(made, batch_size=32, seed=2)
    assert not np.array_equal(other.batch_at(0).tokens_bt, whole.tokens_bt)


@pytest.mark.parametrize("texts, fill", [(2, 0.83), (3, 0.75)])
def test_rows_are_nearly_full_though_the_lengths_of_an_examples_texts_are_unlike(texts: int, fill: float) -> None:
    batches = TupleBatches(examples(3000, texts), batch_size=256, seed=0)
    assert batches.fill > fill
    totals = [np.count_nonzero(batch.sequences_bt) for batch in batches.first_epoch()][:-1]
    assert max(totals) < 1.15 * min(totals)
    assert TupleBatches(examples(3000, texts), batch_size=64, row_length=64, seed=0).row_length <= 64
