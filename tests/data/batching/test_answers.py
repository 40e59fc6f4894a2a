"""Batches of questions with windows of their contexts: every answer in its row where it is in its window."""

import numpy as np
from asked_questions import answer_examples

from bertjax.data.batching.answers import AnswerBatches

LENGTHS = (3 + np.random.default_rng(0).geometric(0.1, 40).clip(max=30)).tolist()


def test_an_epoch_has_each_window_once_with_its_answer() -> None:
    examples = answer_examples(LENGTHS)
    batches = AnswerBatches(examples, batch_size=12, seed=3)
    seen = []
    for step in range(batches.steps_in_epoch):
        batch, tokens_bt, numbers_bk = batches.batch_at(step), batches.tokens_at(step), batches.numbers_at(step)
        np.testing.assert_array_equal(batch.weights_bk, numbers_bk >= 0)
        for row, slot in zip(*np.nonzero(batch.weights_bk), strict=True):
            number = numbers_bk[row, slot]
            places = [batch.starts_bk[row, slot], batch.ends_bk[row, slot]]
            expected = examples.starts_n[number] + examples.answers_n2[number]
            np.testing.assert_array_equal(tokens_bt[row][places], expected)
            seen.append(number)
        for field in (batch.starts_bk, batch.ends_bk):
            assert field.dtype == np.int32 and not field[batch.weights_bk == 0].any()
    assert sorted(seen) == list(range(len(LENGTHS)))
