"""Batches of tagged sentences: every token once an epoch, with its label, whichever rows are made."""

import numpy as np
from tagged_sentences import tagged_examples

from bertjax.data.batching.tagged import TaggedBatches

LENGTHS = (3 + np.random.default_rng(0).geometric(0.1, 70).clip(max=40)).tolist()


def test_an_epoch_has_each_token_once_with_its_label() -> None:
    examples = tagged_examples(LENGTHS)
    batches = TaggedBatches(examples, batch_size=16, seed=3)
    seen = []
    for step in range(batches.steps_in_epoch):
        batch, tokens_bt = batches.batch_at(step), batches.tokens_at(step)
        there = batch.sequences_bt > 0
        np.testing.assert_array_equal(there, tokens_bt >= 0)
        tokens_m = tokens_bt[there]
        seen += tokens_m.tolist()
        np.testing.assert_array_equal(batch.tokens_bt[there], examples.ids[tokens_m])
        np.testing.assert_array_equal(batch.labels_bt[there], examples.labels_m[tokens_m].clip(min=0))
        np.testing.assert_array_equal(batch.weights_bt[there], examples.labels_m[tokens_m] >= 0)
        assert not any(field[~there].any() for field in batch) and not batch.segments_bt.any()
        assert batch.weights_bt.dtype == np.float32 and batch.labels_bt.dtype == np.int32
        numbers_bk = batches.numbers_at(step)
        assert numbers_bk.max() < len(LENGTHS) and (numbers_bk >= 0).sum() == batches.batch_size_at(step)
        for row, of_row in enumerate(numbers_bk):
            of_row = of_row[of_row >= 0]
            starts = np.flatnonzero((batch.positions_bt[row] == 0) & (batch.sequences_bt[row] > 0))
            np.testing.assert_array_equal(tokens_bt[row][starts], examples.starts_n[of_row])
    assert sorted(seen) == list(range(len(examples.ids)))
    part, whole = batches.batch_at(1, range(1, 3)), batches.batch_at(1)
    for some, field in zip(part, whole, strict=True):
        np.testing.assert_array_equal(some, field[1:3])
