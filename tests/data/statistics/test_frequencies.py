"""Words by how often they are, against counts made by hand."""

import math

import numpy as np
import pytest

from bertjax.data.batching.batches import Batches
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.statistics.frequencies import (
    CLASSES,
    guessing_loss,
    label_counts,
    log_frequencies,
    word_classes,
    word_counts,
)
from bertjax.data.tokenizer.rules import NUM_SPECIAL, SPECIAL_TOKENS, UNK, WORDS, Vocabulary
from bertjax.data.tokenizer.tokenizer import Tokenizer

WORDS_BY_NUMBER = [*SPECIAL_TOKENS, "the", "of", "1984", "cat", "b2", "dog"]
TOKENIZER = Tokenizer.from_vocab({word: number for number, word in enumerate(WORDS_BY_NUMBER)}, WORDS)


def corpus(counts: list[int]) -> Corpus:
    ids = np.repeat(np.arange(len(counts)), counts).astype("<u2")
    return Corpus("made-up", "", ids, np.array([0, len(ids)]), np.array([0, 1]))


def test_counts_are_of_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertjax.data.statistics.frequencies._AT_ONCE", 7)
    counts = [0, 9, 0, 0, 0, 5, 3, 0, 2, 4, 1]
    assert word_counts(corpus(counts), len(counts)).tolist() == counts


def test_log_frequencies() -> None:
    text, vocabulary = corpus([0, 1, 0, 0, 0, 3, 1, 1]), Vocabulary(40)
    logs_v = log_frequencies(text, vocabulary, 41, predict_unk=False)
    assert logs_v.dtype == np.float32 and logs_v.shape == (41,)
    for word, count in {5: 3, 6: 1, 7: 1, 8: 0, 40: 0}.items():
        assert logs_v[word] == pytest.approx(math.log((count + 0.5) / 6), rel=1e-6)
    assert set(logs_v[:5]) == {logs_v[8]}
    predicted_v = log_frequencies(text, vocabulary, 41, predict_unk=True)
    assert predicted_v[1] == pytest.approx(math.log(1.5 / 6), rel=1e-6)
    np.testing.assert_array_equal(np.delete(predicted_v, 1), np.delete(logs_v, 1))


def test_log_frequencies_are_of_the_beginning_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertjax.data.statistics.frequencies._ENOUGH", 4)
    logs = [
        log_frequencies(corpus(counts), Vocabulary(8), 8, predict_unk=True)
        for counts in ([0, 1, 0, 0, 0, 3, 1, 1], [0, 1, 0, 0, 0, 3, 0, 0])
    ]
    np.testing.assert_array_equal(*logs)


@pytest.mark.parametrize(
    "the, of, cat, dog, frequent",
    [
        (5, 3, 2, 0, {"the"}),  # exactly half
        (4, 3, 2, 0, {"the", "of"}),
        (1, 1, 1, 1, {"the", "of"}),  # the first of equals
        (0, 0, 0, 3, {"dog"}),
    ],
)
def test_frequent_words_are_the_fewest_that_make_up_half(the, of, cat, dog, frequent) -> None:
    counts = np.array([0, 90, 0, 0, 0, the, of, 70, cat, 80, dog])
    names = [CLASSES[number] for number in word_classes(counts, TOKENIZER)]
    assert {word for word, name in zip(WORDS_BY_NUMBER, names, strict=True) if name == "frequent"} == frequent
    assert names[UNK] == "<unk>" and [names[7], names[9]] == ["numbers", "numbers"]
    assert names.count("rare") == len(names) - len(frequent) - 3


def test_guessing_by_frequency_is_the_cross_entropy_of_smoothed_counts() -> None:
    counts, labels = np.array([7, 4, 7, 7, 7, 2, 0]), np.array([9, 0, 9, 9, 9, 3, 1])
    shares = {5: 2.5 / 3, 6: 0.5 / 3}
    expected = -(3 * math.log(shares[5]) + math.log(shares[6])) / 4
    assert guessing_loss(counts, labels, Vocabulary(7), predict_unk=False) == pytest.approx(expected)
    labels[UNK] = 2
    expected = -(3 * math.log(2.5 / 7.5) + math.log(0.5 / 7.5) + 2 * math.log(4.5 / 7.5)) / 6
    assert guessing_loss(counts, labels, Vocabulary(7), predict_unk=True) == pytest.approx(expected)


def test_no_guess_by_frequency_beats_the_labels_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(NUM_SPECIAL, 30, 600).astype("<u2")
    text = Corpus("made-up", "", ids, np.arange(0, 601, 6), np.arange(0, 101, 5))
    batches = Batches(
        text, batch_size=7, max_length=20, vocabulary=Vocabulary(30), mlm_probability=0.15, predict_unk=False,
        too_long="truncate", seed=0,
    )  # fmt: skip
    labels = label_counts(batches.first_epoch(), 30)
    assert labels.sum() == sum(batch.mlm_weights_bp.sum() for batch in batches.first_epoch()) > 100
    own = labels[NUM_SPECIAL:] / labels.sum()
    entropy = -(own * np.log(own, where=own > 0, out=np.zeros_like(own))).sum()
    assert (
        entropy < guessing_loss(word_counts(text, 30), labels, Vocabulary(30), predict_unk=False) < math.log(25) + 0.1
    )
