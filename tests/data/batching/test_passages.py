"""Which sentences make a passage, and the file that tells."""

import collections
import tracemalloc

import numpy as np
import pytest
from made_up import CORPUS, MAX_LENGTH, assert_same, make, numbered, random_corpus, sentences_of, steps, unmasked

from bertjax.data.batching import passages as passages_module
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.tokenizer.rules import CLS, NUM_SPECIAL, SEP, Vocabulary
from bertjax.errors import BertjaxError


def passages_of(corpus, room, too_long):
    """Finds by a loop the words of consecutive sentences of a paragraph, as many as fit."""
    text, found = sentences_of(corpus), []
    for first, end in zip(corpus.paragraphs[:-1], corpus.paragraphs[1:], strict=True):
        passage = []
        for sentence in text[first:end]:
            if passage and len(passage) + len(sentence) > room:
                found.append(passage)
                passage = []
            passage = passage + sentence
        found.append(passage)
    return [passage[:room] for passage in found if too_long == "truncate" or len(passage) <= room]


def words_of(batch):
    """Returns the words of each row, without its special tokens."""
    rows = []
    for tokens, present in zip(unmasked(batch).tolist(), batch.sequences_bt.tolist(), strict=True):
        tokens = tokens[: sum(present)]
        assert tokens[0] == CLS and tokens[-1] == SEP and min(tokens[1:-1]) >= NUM_SPECIAL
        rows.append(tokens[1:-1])
    return rows


@pytest.mark.parametrize("at_once", [1, 7, 100, 10**6])
@pytest.mark.parametrize("too_long", ["truncate", "drop"])
@pytest.mark.parametrize("max_length", [5, 12, 24, 400])
def test_passages_are_those_of_a_loop(monkeypatch, at_once, too_long, max_length):
    monkeypatch.setattr(passages_module, "_SENTENCES_AT_ONCE", at_once)
    batches = make(objective="mlm", max_length=max_length, too_long=too_long, batch_size=16)
    expected = passages_of(CORPUS, max_length - 2, too_long)
    found = words_of(steps(batches, -(-batches.num_sequences // 16)))[: batches.num_sequences]
    assert batches.num_sequences == len(expected)
    assert sorted(found) == sorted(expected)


def test_an_epoch_has_each_sentence_once_in_a_passage_of_its_paragraph():
    """Over 100,000 tokens. Of what is cut the first words are there."""
    corpus = random_corpus(seed=5, paragraphs=2200, longest=30)
    batches = make(corpus, objective="mlm", batch_size=512)
    n = batches.num_sequences
    batch = steps(batches, -(-3 * n // 512))
    assert np.count_nonzero(batch.sequences_bt[:n]) > 100_000
    rows = words_of(batch)
    first_words = {words[0] for words in sentences_of(corpus)}
    paragraph = np.searchsorted(corpus.sentences[corpus.paragraphs[1:]], np.arange(len(corpus.ids)), side="right")
    for epoch in range(3):
        words = collections.Counter(word for row in rows[epoch * n : (epoch + 1) * n] for word in row)
        assert first_words <= words.keys() and set(words.values()) == {1}
    for row in rows:
        assert len(set(paragraph[np.array(row) - NUM_SPECIAL])) == 1 and row[0] in first_words
        assert row == list(range(row[0], row[0] + len(row)))
    assert sum(one == other for one, other in zip(rows[:n], rows[n : 2 * n], strict=True)) < 10
    assert not batch.segments_bt.any() and not batch.nsp_weights_bk.any() and not batch.nsp_labels_bk.any()


def test_every_sentence_is_whole_where_none_is_too_long():
    batches = make(objective="mlm", batch_size=make(objective="mlm").num_sequences)  # of 20 words at most in 22
    assert sorted(word for row in words_of(batches.batch_at(0)) for word in row) == CORPUS.ids.tolist()


def test_no_sentence_fits():
    with pytest.raises(BertjaxError) as caught:
        make(numbered([[23, 30], [40]]), objective="mlm", too_long="drop")
    message = str(caught.value)
    assert "made-up/train has no sentence that fits in data.max_length=24" in message and "\n" not in message
    assert make(numbered([[23]]), objective="mlm").num_sequences == 1


def test_the_file_is_made_once_and_anew_where_it_is_damaged(tmp_path, monkeypatch):
    corpus = CORPUS._replace(folder=tmp_path)
    make(corpus)  # whose tables are others
    first = steps(make(corpus, objective="mlm"), 3)
    assert_same(first, steps(make(objective="mlm"), 3))
    file = tmp_path / "passages-22-truncate" / "passages.npy"
    content = file.read_bytes()
    for damage in (content[:-8], b"", content[:-8] + b"12345678"):
        file.write_bytes(damage)
        assert_same(first, steps(make(corpus, objective="mlm"), 3))
        assert file.read_bytes() == content

    def build(*args, **settings):
        raise AssertionError("built again")

    monkeypatch.setattr(passages_module, "_build", build)
    assert_same(first, steps(make(corpus, objective="mlm"), 3))
    for changes in ({"too_long": "drop"}, {"max_length": MAX_LENGTH - 1}):
        with pytest.raises(AssertionError, match="built again"):
            make(corpus, objective="mlm", **changes)


def test_nothing_in_memory_grows_with_the_corpus(tmp_path, monkeypatch):
    """The greater corpus has 100 times as many sentences, whose numbers alone would take 2.4 MB."""
    monkeypatch.setattr(passages_module, "_SENTENCES_AT_ONCE", 1000)
    most = []
    for sentences in (3000, 300_000):
        folder = tmp_path / str(sentences)
        folder.mkdir()
        ends = np.arange(sentences + 1)
        for name, array in (("ids", ends % 50 + 5), ("sentences", 9 * ends), ("paragraphs", ends[::3])):
            np.repeat(array, 9 if name == "ids" else 1).astype(np.int64).tofile(folder / name)
        arrays = {name: np.memmap(folder / name, np.int64, "r") for name in ("ids", "sentences", "paragraphs")}
        tracemalloc.start()
        batches = make(Corpus("made-up", "", **arrays, folder=folder), objective="mlm", vocabulary=Vocabulary(60))
        batches.batch_at(0)
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] < most[0] + 500_000
