"""Word frequencies in the training text, the classes that they make, and how well they alone predict."""

from collections.abc import Iterable

import numpy as np

from bertjax.data.batching.batch import Batch
from bertjax.data.batching.masking import words
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.tokenizer.rules import Vocabulary
from bertjax.data.tokenizer.tokenizer import Tokenizer

# Of tokens, which are words or pieces of them. <unk> stands for all words that the vocabulary lacks; a number has a
# digit in it; of the others, the fewest that make up half of the training text are frequent, those left are rare.
CLASSES = ("frequent", "rare", "<unk>", "numbers")

_AT_ONCE = 1 << 24  # ids counted together
_ENOUGH = 1 << 27  # ids: with more the logarithms change little


def word_counts(corpus: Corpus, vocab_size: int) -> np.ndarray:
    """Counts how often each token is in the corpus, int64 [v]."""
    return _count(corpus.ids, vocab_size)


def log_frequencies(corpus: Corpus, vocabulary: Vocabulary, size: int, *, predict_unk: bool) -> np.ndarray:
    """Returns log((count + 0.5) / tokens) of each token in the first 2**27 of the corpus.

    Args:
      size: at least the vocabulary's.
      predict_unk: whether <unk> may be to predict.

    Returns:
      float32 [size]; tokens that are never to be predicted have the lowest value.
    """
    counts_v = _count(corpus.ids[:_ENOUGH], size)
    logs_v = np.log((counts_v + 0.5) / np.sum(counts_v))
    never = vocabulary.special - {vocabulary.unk} if predict_unk else vocabulary.special
    logs_v[sorted(never)] = logs_v.min()
    return logs_v.astype(np.float32)


def word_classes(counts_v: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Returns the place in CLASSES of each token, int32 [v].

    Args:
      counts_v: of the training text; of equally frequent words the first in the vocabulary are the more frequent.
    """
    frequent, rare, unk, numbers = range(len(CLASSES))
    classes_v = np.full(len(counts_v), rare, np.int32)
    has_digit_v = [any(letter.isdigit() for letter in token) for token in tokenizer.words(range(len(counts_v)))]
    classes_v[has_digit_v] = numbers
    classes_v[tokenizer.vocabulary.unk] = unk
    counts_v = np.where(classes_v == rare, counts_v, 0)
    order_v = np.argsort(-counts_v, kind="stable")
    so_far_v = np.cumsum(counts_v[order_v])
    classes_v[order_v[: np.searchsorted(so_far_v, so_far_v[-1] / 2) + 1]] = frequent
    return classes_v


def guessing_loss(counts_v: np.ndarray, labels_v: np.ndarray, vocabulary: Vocabulary, *, predict_unk: bool) -> float:
    """Returns the cross-entropy, in nats, of guessing each word by its frequency in the training text alone.

    Frequencies are of the words that may be to predict, each counted half a time more, so that none is impossible.

    Args:
      counts_v: of the training text, int64 [v].
      labels_v: how often each token is to be predicted, int64 [v].
      predict_unk: whether <unk> may be to predict.
    """
    may_be = _may_be_predicted(vocabulary, predict_unk)
    shares_w = (counts_v[may_be] + 0.5) / (counts_v[may_be] + 0.5).sum()
    labels_w = labels_v[may_be]
    return float(-(labels_w * np.log(shares_w)).sum() / labels_w.sum())


def guessing_accuracy(
    counts_v: np.ndarray, labels_v: np.ndarray, vocabulary: Vocabulary, *, predict_unk: bool
) -> float:
    """Returns the share found by who always guesses the word that is most frequent in the training text.

    The arguments are those of `guessing_loss`.
    """
    may_be = _may_be_predicted(vocabulary, predict_unk)
    return float(labels_v[may_be[counts_v[may_be].argmax()]] / labels_v[may_be].sum())


def _may_be_predicted(vocabulary: Vocabulary, predict_unk: bool) -> np.ndarray:
    may_be = words(vocabulary)
    return np.append(may_be, vocabulary.unk) if predict_unk else may_be


def label_counts(batches: Iterable[Batch], vocab_size: int) -> np.ndarray:
    """Counts how often each token is to be predicted, int64 [v]."""
    counts_v = np.zeros(vocab_size, np.int64)
    for batch in batches:
        counts_v += np.bincount(batch.mlm_labels_bp[batch.mlm_weights_bp > 0], minlength=vocab_size)
    return counts_v


def _count(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    counts_v = np.zeros(vocab_size, np.int64)
    for start in range(0, len(ids), _AT_ONCE):
        counts_v += np.bincount(ids[start : start + _AT_ONCE], minlength=vocab_size)
    return counts_v
