"""Text of every kind through to batches, and damaged caches: every word in its place, or a clear refusal."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from answers import REFUSED, answer, damaged_bytes, damaged_json
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.data.batching.batch import Batch
from bertjax.data.batching.batches import Batches
from bertjax.data.corpus.corpus import Corpus, load_or_build
from bertjax.data.sources import wikitext
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.storage import cache

DOCUMENTS = [[[f"the word{n % 7} sees word{n % 5}", f"and word{n % 3} goes", "so"] for n in range(20)]]
TOKENIZER = Tokenizer.train((s for document in DOCUMENTS for p in document for s in p), min_frequency=1)
SENTENCES = st.text(max_size=40) | st.sampled_from(
    ["", " ", "a b", "\0", "\u05d0 \u05d1", "e\u0301", "\u2028", "a" * 999]
)
TEXTS = st.lists(st.lists(st.lists(SENTENCES, max_size=4), max_size=4), max_size=3)


def open_corpus(folder: Path, documents=DOCUMENTS, tokenizer=TOKENIZER) -> Corpus:
    return load_or_build(folder, "made-up", "1", documents, tokenizer)


def first_batch(corpus: Corpus, tokenizer=TOKENIZER, **changes) -> Batch:
    settings = {"batch_size": 4, "max_length": 12, "vocabulary": tokenizer.vocabulary, "mlm_probability": 0.15}
    settings |= {"predict_unk": False, "too_long": "truncate", "seed": 1}
    return Batches(corpus, **settings | changes).batch_at(0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Batch]:
    """A cache with its corpus and its tables of pairs, and the first batch."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, first_batch(open_corpus(folder))


FILES = [f"{part}.bin" for part in ("ids", "sentences", "paragraphs")] + ["info.json", "sums.json"]
FILES += [f"pairs-9-truncate/{name}" for name in ("firsts.npy", "by_length.npy", "sums.json")]


@given(name=st.sampled_from(FILES), data=st.data())
def test_damaged_caches(whole, name, data):
    """Whatever happened to a file, the batch is as it was."""
    source, expected = whole
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        [corpus] = (Path(folder) / "corpora").iterdir()
        path = corpus / name
        if name.endswith("json") and data.draw(st.booleans()):
            path.write_text(data.draw(damaged_json(path.read_text())), encoding="utf-8", errors="surrogatepass")
        else:
            path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
        batch = answer(lambda: first_batch(open_corpus(Path(folder))))
        assert batch is not REFUSED
        for field, one, other in zip(Batch._fields, batch, expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=field)


@pytest.mark.parametrize("kind", ["removed", "folder", "link to nowhere", "link to itself"])
@pytest.mark.parametrize("name", FILES)
def test_files_that_are_none(whole, tmp_path, name, kind):
    source, expected = whole
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    [corpus] = (tmp_path / "corpora").iterdir()
    (corpus / name).unlink()
    if kind == "folder":
        (corpus / name).mkdir()
    elif kind != "removed":
        (corpus / name).symlink_to(corpus / name if kind.endswith("itself") else "nowhere")
    batch = first_batch(open_corpus(tmp_path))
    np.testing.assert_array_equal(batch.tokens_bt, expected.tokens_bt)


@given(data=st.data())
def test_indexes_that_lie(whole, data):
    """With right sums: what some other program may have written is refused or built anew, never half believed."""
    source, expected = whole
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        [corpus] = (Path(folder) / "corpora").iterdir()
        (corpus / "info.json").write_text(
            data.draw(damaged_json((corpus / "info.json").read_text())), encoding="utf-8", errors="surrogatepass"
        )
        (corpus / "sums.json").write_text(json.dumps(cache._sums(corpus)))
        batch = answer(lambda: first_batch(open_corpus(Path(folder))))
        if batch is not REFUSED:
            np.testing.assert_array_equal(batch.tokens_bt, expected.tokens_bt)


@given(documents=TEXTS)
@example([[["\ud800", "a"]]])
@example([[["\udcff"]]])
def test_corpora_of_any_text(documents):
    """What comes back is the text's words, lower-cased; sentences without any are gone."""
    with tempfile.TemporaryDirectory() as folder:
        sentences = [sentence for document in documents for paragraph in document for sentence in paragraph]
        tokenizer = answer(Tokenizer.train, sentences, min_frequency=1)
        if tokenizer is REFUSED:
            assert any("\ud800" <= character <= "\udfff" for sentence in sentences for character in sentence)
            return
        corpus = answer(open_corpus, Path(folder), documents, tokenizer)
        expected = [words for sentence in sentences if (words := tokenizer.split(sentence))]
        if corpus is REFUSED:
            assert expected == []
            return
        bounds = zip(corpus.sentences[:-1], corpus.sentences[1:], strict=True)
        assert [tokenizer.tokens(corpus.ids[start:end]) for start, end in bounds] == expected
        for row_length in (None, 40):
            batch = answer(first_batch, corpus, tokenizer, row_length=row_length)
            if batch is not REFUSED:
                assert batch.tokens_bt.max() < tokenizer.vocab_size and batch.nsp_weights_bk.sum() > 0


LINES = st.lists(
    st.sampled_from([" = Title = \n", " \n", " a . b \n", " . \n", "\r", "\n", "\u2028", "\0", " = ", "x . "])
)


@given(content=st.binary() | LINES.map(lambda lines: "".join(lines).encode()) | damaged_bytes(b" a b . c d . \n" * 9))
@example(b"\xef\xbb\xbf a . b \n")
@example(b"\xff\xfe")
def test_files_of_any_bytes(tmp_path, content):
    """A UTF-8 file without NULs is read, by whatever line ends; nothing else is."""
    path = tmp_path / "wiki.train.tokens"
    path.write_bytes(content)
    documents = answer(lambda: list(wikitext.documents(path)))
    try:
        readable = b"\0" not in content and content.decode("utf-8") is not None
    except UnicodeDecodeError:
        readable = False
    assert (documents is not REFUSED) == readable
    if readable:
        with path.open(encoding="utf-8") as lines:  # with Python's own line ends
            expected = [line.strip().split(" . ") for line in lines if len(line.split(" . ")) >= 2]
        assert [paragraph for document in documents for paragraph in document] == expected


def test_a_line_of_three_million_bytes(tmp_path):
    """Both as one sentence and as millions of short ones, in seconds and in memory that grows with the text alone."""
    path = tmp_path / "wiki.train.tokens"
    path.write_text("a b . " + "w " * 500_000 + " . " + "x . " * 500_000 + "\n" + "y" * 3_000_000 + " . z \n")
    tokenizer = Tokenizer.train(["a b w x z"], min_frequency=1)
    corpus = open_corpus(tmp_path, wikitext.documents(path), tokenizer)
    lengths = np.diff(corpus.sentences)
    assert lengths[:3].tolist() == [2, 500_000, 1] and len(lengths) == 500_002 + 2
    batch = first_batch(corpus, tokenizer)
    assert batch.tokens_bt.shape == (4, 12) and batch.tokens_bt.max() < tokenizer.vocab_size
