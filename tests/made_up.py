"""Corpora whose every word tells where it is from, what is asked of batches of them, and what is asked of chance."""

import collections

import numpy as np

from bertjax.data.batching.batch import Batch
from bertjax.data.batching.batches import Batches
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.tokenizer.rules import NUM_SPECIAL, SEP, Vocabulary

MAX_LENGTH = 24


def numbered(paragraphs):
    """A corpus of sentences of these lengths without any word twice: each word tells where it is from."""
    lengths = [length for paragraph in paragraphs for length in paragraph]
    ids = np.arange(NUM_SPECIAL, NUM_SPECIAL + sum(lengths), dtype=np.uint16 if sum(lengths) < 2**15 else np.uint32)
    sentences, paragraphs = (np.cumsum([0, *x]) for x in (lengths, map(len, paragraphs)))
    return Corpus("made-up/train", "", ids, sentences, paragraphs)


def random_corpus(seed, paragraphs=40, longest=20):
    rng = np.random.default_rng(seed)
    return numbered([rng.integers(1, longest + 1, rng.integers(1, 9)).tolist() for _ in range(paragraphs)])


CORPUS = random_corpus(seed=0)


def make(corpus=CORPUS, **changes):
    settings = {"batch_size": 16, "max_length": MAX_LENGTH, "vocabulary": Vocabulary(NUM_SPECIAL + len(corpus.ids))}
    settings |= {"mlm_probability": 0.15, "predict_unk": False, "too_long": "truncate", "seed": 7}
    return Batches(corpus, **settings | changes)


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
