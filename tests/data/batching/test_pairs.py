"""Which sentences make a pair, and the files that tell."""

import collections
import itertools
import tracemalloc

import numpy as np
import pytest
from made_up import (
    CORPUS,
    assert_same,
    assert_share,
    assert_uniform,
    followed,
    make,
    numbered,
    pairs,
    pop_from_the_longer,
    sentences_of,
    steps,
)

from bertjax.data.batching import pairs as pairs_module
from bertjax.data.batching.pairs import PairStream, to_be_changed
from bertjax.data.batching.sequences import truncate
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.tokenizer.rules import NUM_SPECIAL, Vocabulary
from bertjax.errors import BertjaxError


def test_truncation_is_popping_from_the_longer_side():
    lengths = np.array(list(itertools.product(range(1, 12), range(1, 12))))
    for room in range(2, 24):
        cut = np.stack(truncate(lengths[:, 0], lengths[:, 1], room), axis=1)
        popped = [[len(side) for side in pop_from_the_longer(range(a), range(b), room)] for a, b in lengths]
        np.testing.assert_array_equal(cut, popped)


# The next sentence or a stranger.


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
def test_half_of_the_seconds_are_the_next_ones(too_long):
    batch = steps(make(batch_size=512, too_long=too_long), 8)
    drawn = pairs(CORPUS, batch)
    is_next = batch.nsp_labels_bk[:, 0]
    assert_share(is_next.sum(), len(is_next), 0.5)
    for (first, second), label in zip(drawn, is_next, strict=True):
        assert label == (second == first + 1)  # so a stranger never is the next one


def test_a_stranger_is_any_sentence_that_fits_but_the_next():
    corpus = numbered([[3, 4], [6, 2, 5], [1, 7, 9]])
    length = [len(words) for words in sentences_of(corpus)]
    batch = steps(make(corpus, max_length=13, too_long="drop", batch_size=6000), 1)
    strangers = collections.defaultdict(list)
    for first, second in pairs(corpus, batch):
        assert length[first] + length[second] <= 10
        if second != first + 1:
            strangers[first].append(second)
    assert strangers.keys() == {0, 2, 3, 5}  # 7 and 9 are too long together
    for first, drawn in strangers.items():
        fitting = [i for i in range(8) if length[first] + length[i] <= 10 and i != first + 1]
        assert_uniform(drawn, fitting)


def test_where_no_stranger_fits_it_is_the_next():
    corpus = numbered([[9, 2], [9, 9]])
    batch = steps(make(corpus, max_length=14, too_long="drop"), 4)
    assert set(pairs(corpus, batch)) == {(0, 1)}
    assert batch.nsp_labels_bk.all()


@pytest.mark.parametrize(
    "paragraphs, too_long", [([[3], [4], [5]], "truncate"), ([[20, 2], [1]], "drop"), ([[22]], "drop")]
)
def test_no_two_sentences(paragraphs, too_long):
    with pytest.raises(BertjaxError) as caught:
        make(numbered(paragraphs), too_long=too_long)
    assert "made-up/train" in str(caught.value) and "data.max_length=24" in str(caught.value)
    assert "\n" not in str(caught.value)


def repeated(kinds, length=4, places=3000):
    """A corpus of as many sentences, of which some look alike, and one of the same places without a word twice."""
    plain = numbered([[length] * 10] * (places // 10))
    kind_n = np.random.default_rng(0).choice(len(kinds), places, p=kinds)
    ids = NUM_SPECIAL + (kind_n[:, None] * length + np.arange(length)).ravel()
    return plain._replace(ids=ids.astype(np.uint16)), plain


def of_stream(corpus, count=8192, max_length=24, too_long="truncate"):
    """Pairs as numbers of sentences, their labels, and which of them are to have a stranger."""
    drawn = PairStream(corpus, max_length=max_length, too_long=too_long, seed=7).draw(np.arange(count))
    first_n, second_n = (np.searchsorted(corpus.sentences, start_n) for start_n in (drawn.start_a_n, drawn.start_b_n))
    return first_n, second_n, drawn.is_next_n, to_be_changed(drawn.keys_n)


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
def test_no_stranger_has_the_words_of_the_next_sentence(too_long):
    """A quarter of them would have. All other draws are as they would be anyway."""
    corpus, plain = repeated([0.5] + [0.005] * 100)
    first_n, second_n, is_next_n, changed_n = of_stream(corpus, too_long=too_long)
    words = corpus.ids.reshape(-1, 4)
    np.testing.assert_array_equal(is_next_n, (words[second_n] == words[first_n + 1]).all(axis=1))
    assert_share(is_next_n.sum(), len(is_next_n), 0.5)
    _, once_n, *_ = of_stream(plain, too_long=too_long)
    refused_n = changed_n & (words[once_n] == words[first_n + 1]).all(axis=1)
    assert_share(refused_n.sum(), changed_n.sum(), 0.25 + 100 * 0.005**2)
    np.testing.assert_array_equal(second_n[~refused_n], once_n[~refused_n])
    common = (words[:, 0] == NUM_SPECIAL).nonzero()[0]
    instead_n = second_n[refused_n & np.isin(first_n + 1, common)]
    others = np.setdiff1d(np.arange(3000), common)
    assert_share((instead_n < 1000).sum(), len(instead_n), (others < 1000).mean())  # of all that there are


def test_a_stranger_differs_in_what_is_seen_of_it():
    """Sentences of 12 words, of which the first 6 are the same for all and no more than 5 fit."""
    plain = numbered([[12, 12]] * 50)
    ids = plain.ids.reshape(-1, 12).copy()
    ids[:, :6] = NUM_SPECIAL + np.arange(6)
    corpus = plain._replace(ids=ids.ravel())
    for max_length, found in ((13, False), (15, False), (17, True)):
        *_, is_next_n, changed_n = of_stream(corpus, max_length=max_length)
        assert is_next_n[~changed_n].all() and (~is_next_n[changed_n]).all() == found == (~is_next_n).any()


def test_where_no_stranger_is_found_it_is_the_next_and_the_share_is_told():
    """Draws are bounded: of nine sentences in ten that look alike some are missed, though there are others."""
    corpus, plain = repeated([0.9, 0.1])
    batches = make(corpus, vocabulary=Vocabulary(99), batch_size=512)
    _, _, is_next_n, changed_n = of_stream(corpus)
    assert batches.without_stranger == is_next_n[changed_n].mean()
    assert batches.without_stranger == pytest.approx(0.9**11 + 0.1**11, abs=0.05)
    assert make(plain, batch_size=512).without_stranger == 0.0
    for objective in ("mlm", "mlm+sop"):
        assert make(corpus, vocabulary=Vocabulary(99), objective=objective).without_stranger == 0.0


# In order or swapped.


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
def test_half_of_the_pairs_are_swapped(too_long):
    """Over 100,000 tokens: both sentences are neighbours, and the label tells which of them comes first in the text."""
    batches = make(batch_size=512, too_long=too_long, objective="mlm+sop")
    batch = steps(batches, 16)
    assert np.count_nonzero(batch.sequences_bt) > 100_000
    drawn, in_order = np.array(pairs(CORPUS, batch)), batch.nsp_labels_bk[:, 0] == 1
    assert_share(in_order.sum(), len(in_order), 0.5)
    assert (drawn[:, 1] - drawn[:, 0] == np.where(in_order, 1, -1)).all()
    assert batch.nsp_weights_bk.all()
    firsts = drawn.min(axis=1)
    lengths = [len(words) for words in sentences_of(CORPUS)]
    fits = [i for i in followed(CORPUS) if too_long == "truncate" or lengths[i] + lengths[i + 1] <= 21]
    for epoch in range(3):
        assert sorted(firsts[epoch * batches.num_sequences :][: batches.num_sequences]) == fits
    swapped_once = dict(zip(firsts[: len(fits)], in_order[: len(fits)], strict=True))
    swapped_again = dict(zip(firsts[len(fits) : 2 * len(fits)], in_order[len(fits) : 2 * len(fits)], strict=True))
    assert swapped_once != swapped_again  # drawn anew


def test_both_objectives_of_pairs_share_their_files(tmp_path):
    make(on_disk(tmp_path, CORPUS))
    make(on_disk(tmp_path, CORPUS), objective="mlm+sop")
    assert [path.name for path in tmp_path.iterdir()] == ["pairs-21-truncate"]


# The files.


def on_disk(tmp_path, corpus):
    return corpus._replace(folder=tmp_path)


@pytest.mark.parametrize("at_once", [1, 7, 100, 10**6])
@pytest.mark.parametrize("too_long", ["truncate", "drop"])
def test_tables_are_those_of_the_whole_corpus(tmp_path, monkeypatch, at_once, too_long):
    monkeypatch.setattr(pairs_module, "_SENTENCES_AT_ONCE", at_once)
    stream = PairStream(on_disk(tmp_path, CORPUS), max_length=24, too_long=too_long, seed=0)
    lengths = [len(words) for words in sentences_of(CORPUS)]
    fits = [i for i in followed(CORPUS) if too_long == "truncate" or lengths[i] + lengths[i + 1] <= 21]
    tables = pairs_module._read(tmp_path / f"pairs-21-{too_long}")
    assert tables.firsts.tolist() == fits and stream.num_sequences == len(fits)
    assert tables.by_length.tolist() == sorted(range(len(lengths)), key=lambda i: min(lengths[i], 22))


def test_tables_are_made_once(tmp_path, monkeypatch):
    corpus = on_disk(tmp_path, CORPUS)
    first = steps(make(corpus), 3)
    assert_same(first, steps(make(CORPUS), 3))  # where they are in no folder

    def build(*args, **settings):
        raise AssertionError("built again")

    monkeypatch.setattr(pairs_module, "_build", build)
    assert_same(first, steps(make(corpus, batch_size=24), 2))
    for changes in ({"too_long": "drop"}, {"max_length": 23}):
        with pytest.raises(AssertionError, match="built again"):
            make(corpus, **changes)


@pytest.mark.parametrize("name", ["firsts.npy", "by_length.npy"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "removed"])
def test_damaged_tables_are_made_anew(tmp_path, name, damage):
    corpus = on_disk(tmp_path, CORPUS)
    whole = steps(make(corpus), 3)
    file = tmp_path / "pairs-21-truncate" / name
    content = file.read_bytes()
    file.unlink()
    if damage != "removed":
        file.write_bytes(content[:-8] if damage == "cut" else b"")
    assert_same(whole, steps(make(corpus), 3))
    assert file.read_bytes() == content


def test_nothing_in_memory_grows_with_the_corpus(tmp_path, monkeypatch):
    """The greater corpus has 100 times as many sentences, whose numbers alone would take 2.4 MB a table."""
    monkeypatch.setattr(pairs_module, "_SENTENCES_AT_ONCE", 1000)
    most = []
    for sentences in (3000, 300_000):
        folder = tmp_path / str(sentences)
        folder.mkdir()
        ends = np.arange(sentences + 1)
        for name, array in (("ids", ends % 50 + 5), ("sentences", 9 * ends), ("paragraphs", ends[::3])):
            np.repeat(array, 9 if name == "ids" else 1).astype(np.int64).tofile(folder / name)
        arrays = {name: np.memmap(folder / name, np.int64, "r") for name in ("ids", "sentences", "paragraphs")}
        corpus = Corpus("made-up/train", "", **arrays, folder=folder)
        tracemalloc.start()
        for row_length in (24, 60):
            for too_long in ("truncate", "drop"):
                batches = make(corpus, vocabulary=Vocabulary(60), row_length=row_length, too_long=too_long)
                batches.batch_at(0)
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] < most[0] + 500_000
