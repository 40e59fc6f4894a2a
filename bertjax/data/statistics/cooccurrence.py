"""Which words stand near which: an embedding that is known before anything is trained.

It is of the first 2**27 tokens of a text at most, which are read some at a time.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, hstack

from bertjax.data.batching.masking import words
from bertjax.data.corpus.corpus import Corpus, read_or_derive
from bertjax.data.tokenizer.rules import Vocabulary

FORMAT = 2  # part of the name: after a change of what is counted, it is counted anew
_MOST, _AT_ONCE = 1 << 27, 1 << 21  # tokens: with more the figures change little
_FARTHEST = 4  # places between two words that stand near each other
_NEAREST = 12  # what two next to each other count: divisible by every distance, so that sums are exact
_SMOOTHING = 0.75


def cooccurrence_embedding(
    corpus: Corpus, vocabulary: Vocabulary, size: int, features: int, *, scale: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Embeds words by what stands near them: U sqrt(S) of a truncated singular value decomposition.

    Decomposed is the positive pointwise mutual information of words at most four places apart in a sentence, weighted
    by 1 / distance, contexts smoothed (Levy et al. 2015, section 3); what stands before a word and what stands after it
    are contexts of their own, as they tell more about its place in a sentence than both together. No feature is to
    differ from others, so all are turned at random; those that a vocabulary is too small for are random numbers.

    Args:
      size: rows, at least the vocabulary's size.
      features: of a row.
      scale: standard deviation of the rows that mean something.
      seed: of the random turn.

    Returns:
      the table, float32 [size, features], and which of its rows mean something, bool [size]: those of words that stand
      near any other.
    """

    def build(folder: Path) -> None:
        np.save(folder / _FILE, _decomposed(_before_and_after(corpus, size), features).astype(np.float32))

    words_vd = read_or_derive(corpus, f"neighbours-{FORMAT}-{size}-{features}", _read, build)
    known_v = np.zeros(size, bool)
    known_v[words(vocabulary)] = True
    sizes_v = np.abs(words_vd).max(axis=1)
    known_v &= sizes_v > 1e-6 * sizes_v.max()  # the others are 0 but for rounding
    rng = np.random.default_rng(seed)
    words_vd = words_vd / (words_vd[known_v].std() if known_v.any() else 1.0)
    rest_vd = rng.normal(size=(size, features - words_vd.shape[1]))
    turn_dd, _ = np.linalg.qr(rng.normal(size=(features, features)))
    return (scale * np.concatenate((words_vd, rest_vd), axis=1) @ turn_dd).astype(np.float32), known_v


_FILE = "embedding.npy"


def _read(folder: Path) -> np.ndarray | None:
    try:
        return np.load(folder / _FILE, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None


def _parts(corpus: Corpus) -> Iterator[tuple[int, int]]:
    end = min(len(corpus.ids), _MOST)
    return ((start, min(start + _AT_ONCE, end)) for start in range(0, end, _AT_ONCE))


def _before_and_after(corpus: Corpus, size: int) -> csr_array:
    """Returns associations of words with what stands after them, then with what stands before, [size, 2 * size]."""
    after_vv = _followers(corpus, size)
    return hstack((_associations(after_vv), _associations(after_vv.T)), format="csr")


def _followers(corpus: Corpus, size: int) -> csr_array:
    """Counts how often a word (row) has another (column) near after it, in twelfths, float64 [size, size]."""
    counts_vv = csr_array((size, size))
    for start, stop in _parts(corpus):
        at_n = np.arange(start, stop)
        end_n = corpus.sentences[np.searchsorted(corpus.sentences, at_n, side="right")]
        for distance in range(1, _FARTHEST + 1):
            first_n = at_n[at_n + distance < end_n]
            pairs = corpus.ids[first_n].astype(np.int32), corpus.ids[first_n + distance].astype(np.int32)
            weights_n = np.full(len(first_n), _NEAREST / distance)
            counts_vv = counts_vv + csr_array((weights_n, pairs), (size, size))
    return counts_vv


def _associations(counts_vv: csr_array) -> csr_array:
    """Returns max(0, log(P(word, context) / (P(word) P(context)))), P(context) smoothed."""
    counts = counts_vv.tocoo()
    word_v, context_v = counts_vv.sum(axis=1), counts_vv.sum(axis=0) ** _SMOOTHING
    context_v /= max(context_v.sum(), 1)
    logs_n = np.log(counts.data / (word_v[counts.row] * context_v[counts.col]))
    above_n = logs_n > 0
    return csr_array((logs_n[above_n], (counts.row[above_n], counts.col[above_n])), counts.shape)


def _decomposed(matrix_vc: csr_array, features: int, *, spare: int = 16, rounds: int = 4) -> np.ndarray:
    """Returns U sqrt(S), [v, min(features, v)], by random projection (Halko et al. 2011, algorithm 4.4).

    Unlike ARPACK it is the same in every run, whatever the matrix.
    """
    v = matrix_vc.shape[0]
    basis_vk = np.random.default_rng(0).normal(size=(v, min(features + spare, v)))
    for _ in range(rounds):
        basis_vk, _ = np.linalg.qr(matrix_vc @ (matrix_vc.T @ basis_vk))
    turn_kk, sizes_k, _ = np.linalg.svd((matrix_vc.T @ basis_vk).T, full_matrices=False)
    return (basis_vk @ turn_kk * np.sqrt(sizes_k))[:, :features]
