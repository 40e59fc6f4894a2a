"""The tokenised corpus: nothing is lost, it is built once, and no accident leaves half of one."""

import errno
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from bertjax.data.corpus import corpus as corpus_module
from bertjax.data.corpus.corpus import load_or_build
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.storage.cache import building_in

DOCUMENTS = [[["a b c", "b"], ["d"]], [["c c", "e a", "a"]]]
TEXT = [["a b c", "b"], ["d"], ["c c", "e a", "a"]]  # their paragraphs


def tokenizer_of(documents, min_frequency=1):
    return Tokenizer.train([s for d in documents for p in d for s in p], min_frequency=min_frequency)


TOKENIZER = tokenizer_of(DOCUMENTS)


def build(cache, documents=DOCUMENTS, *, name="made-up/train", fingerprint="1", tokenizer=TOKENIZER):
    return load_or_build(cache, name, fingerprint, documents, tokenizer)


def untouchable():
    raise AssertionError("the documents are read although the corpus is there")
    yield


def text_of(corpus, tokenizer):
    """Paragraphs of sentences, read word by word."""
    paragraphs = []
    for first, end in zip(corpus.paragraphs[:-1], corpus.paragraphs[1:], strict=True):
        bounds = corpus.sentences[first : end + 1]
        paragraphs.append(
            [" ".join(tokenizer.tokens(corpus.ids[i:j])) for i, j in zip(bounds[:-1], bounds[1:], strict=True)]
        )
    return paragraphs


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def only_folder(cache):
    [folder] = (cache / "corpora").iterdir()
    return folder


# What is in it.


def test_sentences_and_paragraphs_come_back(tmp_path):
    corpus = build(tmp_path)
    assert text_of(corpus, TOKENIZER) == TEXT
    assert corpus.name == "made-up/train"
    assert (corpus.sentences.dtype, corpus.paragraphs.dtype) == (np.int64, np.int64)


def test_many_documents_come_back(tmp_path, monkeypatch):
    """More than are tokenised at once, some without a paragraph."""
    monkeypatch.setattr(corpus_module, "_CHARACTERS_AT_ONCE", 5000)
    rng = np.random.default_rng(0)
    documents = [
        [[f"w{i} w{n} w{i % 7}" for n in range(rng.integers(1, 4))] for _ in range(rng.integers(0, 3))]
        for i in range(1000)
    ]
    tokenizer = tokenizer_of(documents)
    corpus = build(tmp_path, iter(documents), tokenizer=tokenizer)
    assert text_of(corpus, tokenizer) == [paragraph for document in documents for paragraph in document]


def test_the_digest_does_not_depend_on_the_parts_it_is_built_in(tmp_path, monkeypatch):
    whole = build(tmp_path / "1")
    monkeypatch.setattr(corpus_module, "_CHARACTERS_AT_ONCE", 1)
    assert build(tmp_path / "2").digest == whole.digest


def test_sentences_without_words_leave_no_trace(tmp_path):
    documents = [[["", "a", " \t"], [" ", ""]], [[], [""]], [["b c", "", "d"]], [[""]]]
    assert text_of(build(tmp_path, documents), TOKENIZER) == [["a"], ["b c", "d"]]


def test_digest_is_of_the_content(tmp_path):
    corpora = [build(tmp_path / "1"), build(tmp_path / "2", name="other", fingerprint="2")]
    assert corpora[0].digest == corpora[1].digest
    moved = [[["a b", "c b"], ["d"]], [["c c", "e a", "a"]]]  # the same words, otherwise divided
    assert build(tmp_path / "3", moved).digest != corpora[0].digest
    joined = [[["a b c", "b", "d"]], [["c c", "e a", "a"]]]
    assert build(tmp_path / "4", joined).digest != corpora[0].digest


class Wide:
    """Stands for a tokenizer with a vocabulary of any size."""

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def to_json(self):
        return f"{self.vocab_size} tokens"

    def encode_sentences(self, sentences):
        return [[self.vocab_size - 1] for _ in sentences]


@pytest.mark.parametrize(
    "vocab_size, dtype", [(6, np.uint16), (2**16, np.uint16), (2**16 + 1, np.uint32), (2**31, np.uint32)]
)
def test_ids_take_the_bytes_they_need(tmp_path, vocab_size, dtype):
    corpus = build(tmp_path, [[["x"]]], tokenizer=Wide(vocab_size))
    assert corpus.ids.dtype == dtype
    assert corpus.ids.tolist() == [vocab_size - 1]


def test_empty_corpus(tmp_path):
    for documents in ([], [[]], [[[""], [" "]]]):
        with pytest.raises(BertjaxError, match="made-up/train is empty"):
            build(tmp_path, documents)
    assert listing(tmp_path) == ["corpora"]


# Built once.


def test_the_second_start_only_maps(tmp_path):
    first, second = build(tmp_path), build(tmp_path, untouchable())
    for part in ("ids", "sentences", "paragraphs"):
        array = getattr(second, part)
        assert isinstance(array, np.memmap) and not array.flags.writeable
        np.testing.assert_array_equal(array, getattr(first, part))
    assert (first.name, first.digest) == (second.name, second.digest)


def test_other_text_tokenizer_or_name_has_another_folder(tmp_path):
    build(tmp_path)
    build(tmp_path, fingerprint="2")
    build(tmp_path, name="made-up/valid")
    other = build(tmp_path, tokenizer=tokenizer_of(DOCUMENTS, min_frequency=2))
    assert len(list((tmp_path / "corpora").iterdir())) == 4
    assert TOKENIZER.vocab_size - 1 not in other.ids
    assert text_of(build(tmp_path, untouchable()), TOKENIZER) == TEXT


# Accidents.


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("parser"), BertjaxError("bad bytes")])
def test_an_interrupted_build_leaves_nothing(tmp_path, error, monkeypatch):
    monkeypatch.setattr(corpus_module, "_CHARACTERS_AT_ONCE", 50)

    def interrupted():
        yield from DOCUMENTS * 50  # some of it is written
        raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        build(tmp_path, interrupted())
    assert listing(tmp_path) == ["corpora"]
    assert text_of(build(tmp_path), TOKENIZER) == TEXT


def test_what_a_kill_leaves_is_not_used_and_goes_with_the_next_build(tmp_path):
    """A killed build cannot clean up: its folder stays, but under another name."""
    (tmp_path / "corpora" / ".building-killed" / "corpus").mkdir(parents=True)
    (tmp_path / "corpora" / ".building-killed" / "corpus" / "ids.bin").write_bytes(b"half")
    assert text_of(build(tmp_path), TOKENIZER) == TEXT
    assert [path.name.split("-")[0] for path in (tmp_path / "corpora").iterdir()] == ["made"]


def test_a_build_under_way_is_left_alone(tmp_path):
    with building_in(tmp_path) as slow:
        with building_in(tmp_path) as fast:
            assert slow.is_dir() and fast.is_dir() and slow != fast
        assert slow.is_dir() and not fast.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["ids.bin", "sentences.bin", "paragraphs.bin", "info.json", "sums.json"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "removed", "flipped"])
def test_a_damaged_corpus_is_rebuilt(tmp_path, part, damage):
    whole = build(tmp_path)
    file = only_folder(tmp_path) / part
    content = file.read_bytes()
    file.unlink()
    if damage != "removed":
        flipped = bytes([content[0] ^ 1]) + content[1:]
        file.write_bytes({"cut": content[:-1], "emptied": b"", "flipped": flipped}[damage])
    again = build(tmp_path, iter(DOCUMENTS))
    assert text_of(again, TOKENIZER) == TEXT
    assert again.digest == whole.digest
    assert listing(only_folder(tmp_path)) == ["ids.bin", "info.json", "paragraphs.bin", "sentences.bin", "sums.json"]
    build(tmp_path, untouchable())


def test_builders_at_the_same_time_get_the_same(tmp_path):
    """All of them are in the middle of building before one may finish."""
    together, corpora = threading.Barrier(3, timeout=10), []

    def documents():
        yield DOCUMENTS[0]
        together.wait()
        yield DOCUMENTS[1]

    def start():
        try:
            corpora.append(build(tmp_path, documents()))
        except Exception as error:
            corpora.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [error for error in corpora if isinstance(error, Exception)] == []
    assert len({corpus.digest for corpus in corpora}) == 1
    for corpus in corpora:
        assert text_of(corpus, TOKENIZER) == TEXT
    only_folder(tmp_path)  # fails where the slower ones left theirs behind


def refused(number):
    def refuse(*args, **settings):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize(
    "call",
    [
        "pathlib.Path.mkdir",
        "tempfile.mkdtemp",
        "bertjax.data.corpus.corpus.open",
        "pathlib.Path.write_text",
        "os.rename",
    ],
)
def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, call, number):
    (tmp_path / "corpora").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(call, refused(number), raising=False)  # open is a builtin
        with pytest.raises(BertjaxError) as caught:
            build(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message and os.strerror(number) in message and "data.cache" in message
    assert "\n" not in message
    assert listing(tmp_path) == ["corpora"]
    build(tmp_path)


def test_a_cache_below_a_file(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BertjaxError, match=f"cannot write to {tmp_path}/file.*data.cache"):
        build(tmp_path / "file" / "cache")


FULL_DISK = """
import pathlib, resource, sys
from bertjax.data.corpus.corpus import load_or_build
from bertjax.data.tokenizer.tokenizer import Tokenizer
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
tokenizer = Tokenizer.train(["a"], min_frequency=1)
load_or_build(pathlib.Path(sys.argv[1]), "big", "1", [[["a " * 20_000, "a"]]], tokenizer)
"""


def test_a_real_limit_on_file_sizes(tmp_path):
    """The system refuses to let a file grow, as near to a full disk as a test may come. Python ignores SIGXFSZ."""
    pytest.importorskip("resource", reason="this system has no limits on a process's files")
    ended = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"bertjax.errors.BertjaxError: cannot write to {tmp_path}"), ended.stderr
    assert os.strerror(errno.EFBIG) in last and "data.cache" in last
    assert listing(tmp_path) == ["corpora"]
