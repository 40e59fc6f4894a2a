"""Useful operations against a count by hand."""

import dataclasses

import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.data.batching.batch import Batch
from bertjax.models.operations import (
    encoder_operations,
    encoding_figures,
    head_operations,
    sequence_lengths,
    training_figures,
    training_operations,
)

MODEL = BertConfig(vocab_size=11, hidden_size=4, num_layers=2, num_heads=2, intermediate_size=8)


def batch(lengths: list[int], predictions: list[int], *, width: int = 6, slots: int = 3) -> Batch:
    sequences_bt = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
    weights_bp = (np.arange(slots) < np.array(predictions)[:, None]).astype(np.float32)
    nothing = np.zeros((len(lengths), 1), np.int32)
    real = (np.array(lengths) > 0).astype(np.float32)[:, None]
    return Batch(*(nothing,) * 3, sequences_bt, nothing, nothing, weights_bp, nothing, nothing, real)


def test_encoder_by_hand():
    # A token in a layer: four products of 4 x 4 and two of 4 x 8, twice each number: 2 * (64 + 64) = 256.
    # Two products of attention for each pair of tokens: 2 * 2 * 4 = 16.
    assert encoder_operations(np.array([3]), hidden=4, layers=1, intermediate=8) == 3 * 256 + 9 * 16
    assert encoder_operations(np.array([3, 2]), hidden=4, layers=5, intermediate=8) == 5 * (5 * 256 + (9 + 4) * 16)


def test_heads_by_hand():
    # A prediction: 4 x 4, then 4 x 11: 2 * 60. A pair: 4 x 4, then 4 x 2: 2 * 24.
    assert head_operations(7, 2, hidden=4, vocabulary=11) == 7 * 120 + 2 * 48


def test_a_step_is_three_forwards_of_what_is_real():
    forward = 2 * (7 * 256 + (9 + 16) * 16) + 3 * 120 + 2 * 48
    assert training_operations(MODEL, batch([3, 4], [1, 2])) == 3 * forward


def test_a_gate_is_a_third_matrix():
    gated = dataclasses.replace(MODEL, hidden_act="geglu")
    more = 2 * 3 * 7 * 2 * 4 * 8  # layers, forward and backward, tokens, a product of 4 x 8
    assert training_operations(gated, batch([3, 4], [1, 2])) - training_operations(MODEL, batch([3, 4], [1, 2])) == more


def test_narrow_embeddings_are_a_matrix_more_and_words_less():
    narrow = dataclasses.replace(MODEL, embedding_size=3)
    # A token: 3 x 4 more. A prediction: 4 x 3 and 3 x 11 in place of 4 x 4 and 4 x 11.
    ours, plain = (training_operations(model, batch([3, 4], [1, 2])) for model in (narrow, MODEL))
    assert ours - plain == 3 * 2 * (7 * 12 - 3 * (60 - 45))


def test_a_window_leaves_out_pairs_of_tokens():
    for window in (1, 2, 5):
        local = dataclasses.replace(MODEL, positions="rotary", window=window, global_every=2)
        seen = [sum(abs(i - j) <= window for i in range(n) for j in range(n)) for n in (3, 4)]
        more = 3 * 16 * (9 + 16 - sum(seen))  # in the second layer alone
        assert (
            training_operations(MODEL, batch([3, 4], [1, 2])) - training_operations(local, batch([3, 4], [1, 2]))
            == more
        )
    assert encoding_figures(local, np.array([3, 4]), 1.0) == encoding_figures(MODEL, np.array([3, 4]), 1.0)


def test_disentangled_positions_are_two_products_more_of_a_pair_of_tokens():
    disentangled = dataclasses.replace(MODEL, positions="disentangled")
    ours, plain = (training_operations(model, batch([3, 4], [1, 2])) for model in (disentangled, MODEL))
    assert ours - plain == 3 * 2 * 2 * 2 * 4 * (9 + 16)


def test_padding_slots_and_empty_rows_are_not_useful():
    lean = training_operations(MODEL, batch([3, 4], [1, 2]))
    assert training_operations(MODEL, batch([3, 4], [1, 2], width=50, slots=20)) == lean
    assert training_operations(MODEL, batch([3, 4, 0], [1, 2, 0])) == lean


def test_attention_of_packed_sequences_stays_inside_each():
    packed_bt = np.array([[1, 1, 1, 2, 2, 0], [3, 1, 1, 1, 0, 0]])
    assert sorted(sequence_lengths(packed_bt)) == [1, 2, 3, 3]
    assert sequence_lengths(np.zeros((2, 5), np.int32)).size == 0


def test_rates_are_of_the_steps_that_were_timed():
    batches = [batch([3, 4], [1, 2]), batch([5, 6], [1, 1])]
    figures = training_figures(MODEL, batches, [0.5])  # the second was made but not run
    assert figures["pairs_per_second"] == 4 and figures["tokens_per_second"] == 14 and figures["step_seconds"] == 0.5
    assert figures["useful_flops"] == pytest.approx(2 * training_operations(MODEL, batches[0]))


def test_encoding_counts_the_forward_pass_alone():
    figures = encoding_figures(MODEL, np.array([3, 4]), 2.0)
    assert figures["tokens_per_second"] == 3.5 and figures["texts_per_second"] == 1
    assert figures["useful_flops"] == (2 * (7 * 256 + (9 + 16) * 16)) / 2
