"""Cooccurrence equals counting by hand, and its embedding is the same bits each time."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from bertjax.data.corpus.corpus import Corpus
from bertjax.data.statistics import cooccurrence
from bertjax.data.tokenizer.rules import Vocabulary

SIZE = 40
VOCABULARY = Vocabulary(SIZE)


def corpus(sentences: list[list[int]], folder: Path | None = None) -> Corpus:
    ends = np.cumsum([0, *map(len, sentences)])
    ids = np.concatenate([np.array(sentence, np.uint16) for sentence in sentences])
    return Corpus("made", "digest", ids, ends, np.array([0, len(sentences)]), folder)


def random_corpus(seed: int = 0, tokens: range = range(5, SIZE), folder: Path | None = None) -> Corpus:
    """A text of words that have neighbours which they like: a word is near the one before it."""
    rng = np.random.default_rng(seed)
    sentences = []
    for _ in range(200):
        walk = rng.integers(len(tokens)) + np.cumsum(rng.integers(-2, 3, rng.integers(1, 12)))
        sentences.append([tokens[place % len(tokens)] for place in walk])
    return corpus(sentences, folder)


@pytest.mark.parametrize("at_once", [7, 10**6])
def test_neighbours_equal_counting_by_hand(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(cooccurrence, "_AT_ONCE", at_once)
    text = random_corpus()
    by_hand = np.zeros((SIZE, SIZE))
    for start, end in itertools.pairwise(text.sentences):
        for i, j in itertools.combinations(range(start, end), 2):
            if j - i <= 4:
                by_hand[text.ids[i], text.ids[j]] += 1 / (j - i)
    np.testing.assert_allclose(cooccurrence._followers(text, SIZE).toarray() / 12, by_hand, atol=1e-12)
    for near, associations in zip(
        (by_hand, by_hand.T), np.split(cooccurrence._before_and_after(text, SIZE).toarray(), 2, axis=1), strict=True
    ):
        word_v, context_v = near.sum(1) / near.sum(), near.sum(0) ** 0.75 / (near.sum(0) ** 0.75).sum()
        for i, j in itertools.product(range(SIZE), repeat=2):
            pmi = math.log(near[i, j] / near.sum() / (word_v[i] * context_v[j])) if near[i, j] else 0.0
            assert associations[i, j] == pytest.approx(max(0.0, pmi), abs=1e-9)


def test_what_stands_before_and_what_stands_after_are_not_the_same() -> None:
    """20 and 21 have the same neighbours, the one after it, the other before it."""
    rng = np.random.default_rng(0)
    sentences = [order for word in rng.integers(5, 15, 60) for order in ([20, word], [word, 21])]
    table_vd, _ = embed(corpus(sentences), features=4)
    assert np.corrcoef(table_vd[20], table_vd[21])[0, 1] < 0.5


def test_only_the_beginning_of_a_text_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    text = random_corpus()
    most = int(text.sentences[20])
    short = text._replace(ids=text.ids[:most], sentences=text.sentences[:21])
    monkeypatch.setattr(cooccurrence, "_MOST", most)
    followers = [cooccurrence._followers(text, SIZE).toarray() for text in (text, short)]
    assert followers[0].sum() > 0
    np.testing.assert_array_equal(followers[0], followers[1])


def test_the_leading_directions_are_those_of_a_whole_decomposition() -> None:
    matrix = cooccurrence._before_and_after(random_corpus(), SIZE)
    u, s, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
    ours, theirs = cooccurrence._decomposed(matrix, 6, spare=4), (u * np.sqrt(s))[:, :6]
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-2 * s[0])
    np.testing.assert_allclose((ours**2).sum(0), s[:6], rtol=1e-3)


def embed(text: Corpus, features: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return cooccurrence.cooccurrence_embedding(text, VOCABULARY, SIZE, features, scale=0.1, seed=seed)


def test_an_embedding_is_the_same_each_time_and_turned_by_the_seed(tmp_path: Path) -> None:
    text = random_corpus(folder=tmp_path)
    (one_vd, known_v), (again_vd, _), (anew_vd, _), (other_vd, _) = (
        embed(text), embed(text), embed(off_disk(text)), embed(text, seed=1)
    )  # fmt: skip
    assert one_vd.dtype == np.float32 and one_vd.shape == (SIZE, 8)
    np.testing.assert_array_equal(one_vd, again_vd)  # the second is read from the corpus's folder
    np.testing.assert_array_equal(one_vd, anew_vd)
    assert [path.name for path in tmp_path.iterdir()] == ["neighbours-2-40-8"]
    assert np.abs(one_vd - other_vd).max() > 0.05
    np.testing.assert_allclose(one_vd @ one_vd.T, other_vd @ other_vd.T, atol=1e-5)
    np.testing.assert_array_equal(np.flatnonzero(~known_v), range(5))
    assert one_vd[known_v].std() == pytest.approx(0.1, rel=0.05)


def off_disk(text: Corpus) -> Corpus:
    """The same text, on no disk."""
    return text._replace(folder=None)


def test_words_of_the_same_company_are_alike() -> None:
    """20 and 21 stand among the same words, and 22 among others."""
    rng = np.random.default_rng(0)
    near, far = range(5, 10), range(10, 15)
    company = {20: near, 21: near, 22: far}
    text = corpus([[rng.choice(of), word, rng.choice(of)] for word, of in company.items() for _ in range(50)])
    table_vd, known_v = embed(text, features=4)
    assert set(np.flatnonzero(known_v)) == {*near, *far, *company}
    of_nd = table_vd[list(company)]
    of_nd /= np.linalg.norm(of_nd, axis=1, keepdims=True)
    assert of_nd[0] @ of_nd[1] > 0.9 > 0.3 > of_nd[0] @ of_nd[2]


def test_more_features_than_words_are_random_ones() -> None:
    table_vd, known_v = embed(random_corpus(), features=64)
    assert table_vd.shape == (SIZE, 64) and np.isfinite(table_vd).all()
    assert np.linalg.matrix_rank(table_vd) == SIZE
    assert table_vd[known_v].std() == pytest.approx(0.1, rel=0.1)


def test_a_text_of_lone_words_tells_nothing() -> None:
    table_vd, known_v = embed(corpus([[5], [6], [5]]))
    assert not known_v.any() and np.isfinite(table_vd).all()
