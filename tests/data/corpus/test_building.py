"""Corpora of the user's files: the same however they are built, by however many, and however often they were killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertjax.config import Config, DataConfig, Split, TokenizerConfig
from bertjax.data.corpus import building, shard_worker
from bertjax.data.corpus import corpus as corpus_module
from bertjax.data.corpus.building import load_or_build_files
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.prepare import describe, prepare
from bertjax.data.sources import files as files_module
from bertjax.data.sources.files import UserFiles, find_files, fingerprint
from bertjax.data.sources.formats import LAYOUT, Layout
from bertjax.data.tokenizer.rules import SPECIAL_TOKENS, Added, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.runs.folder import RunFolder

WORDS = [f"w{number}" for number in range(50)]
TOKENIZER = Tokenizer.train([" ".join([*WORDS, "."])], min_frequency=1)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder of two large files and many small ones, as shards go here: 720 documents."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "texts"
    folder.mkdir()

    def document() -> str:
        return "\n".join(" ".join(rng.choice(WORDS, rng.integers(0, 9))) + " ." for _ in range(rng.integers(1, 5)))

    for name, number in [("a.txt", 300), ("b.txt", 300), *((f"c{number}.txt", 4) for number in range(30))]:
        (folder / name).write_text("\n\n".join(document() for _ in range(number)))
    return folder


def user_files(folder: Path, *, divided: bool = True, layout: Layout = LAYOUT) -> UserFiles:
    layout = layout._replace(sentence="line")
    found = find_files(str(folder))
    return UserFiles(tuple(found), layout, fingerprint(found, layout), divided)


def build(cache: Path, files: UserFiles, split: Split = "train", *, workers: int = 1) -> Corpus:
    return load_or_build_files(cache, files, split, TOKENIZER, workers=workers)


def test_a_task_is_the_same_in_another_process() -> None:
    added = (*map(Added, SPECIAL_TOKENS), Added("new word", special=False, normalized=True))
    rules = Rules("wordpiece", lowercase=False, added=added)
    for tokenizer in (TOKENIZER, Tokenizer.from_vocab(TOKENIZER.token_ids, rules)):
        there = shard_worker.Task.of_json(shard_worker.Task(LAYOUT, None, tokenizer).to_json()).tokenizer
        assert (there.rules, there.vocabulary) == (tokenizer.rules, tokenizer.vocabulary)
        assert there.to_json() == tokenizer.to_json()


def text_of(corpus: Corpus) -> list[list[str]]:
    """Paragraphs of sentences."""
    words, ends = TOKENIZER.tokens(corpus.ids), corpus.sentences
    sentences = [" ".join(words[i:j]) for i, j in zip(ends[:-1], ends[1:], strict=True)]
    return [sentences[i:j] for i, j in zip(corpus.paragraphs[:-1], corpus.paragraphs[1:], strict=True)]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "SHARD_BYTES", 500)


def test_it_holds_every_document_once(tmp_path: Path, texts: Path, small_shards: None) -> None:
    files = user_files(texts)
    splits: list[Split] = ["train", "valid", "test"]
    corpora = [build(tmp_path / "cache", files, split) for split in splits]
    blocks = [block for file in find_files(str(texts)) for block in file.read_text().split("\n\n")]
    expected = [[line.strip() for line in block.splitlines()] for block in blocks]
    assert sorted(sum(map(text_of, corpora), [])) == sorted(expected)
    assert [len(text_of(corpus)) for corpus in corpora[1:]] == [pytest.approx(7, abs=6)] * 2


def test_shards_and_processes_change_nothing(tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = user_files(texts)
    whole = build(tmp_path / "1", files)
    monkeypatch.setattr(building, "SHARD_BYTES", 500)
    (tmp_path / "queue.py").write_text("raise SystemExit('a namesake')")  # nothing to those processes
    monkeypatch.chdir(tmp_path)
    for cache, workers in (("2", 1), ("3", 2)):
        corpus = build(tmp_path / cache, files, workers=workers)
        assert corpus.digest == whole.digest
        for part in ("ids", "sentences", "paragraphs"):
            np.testing.assert_array_equal(getattr(corpus, part), getattr(whole, part))
    assert len(list((tmp_path / "3" / "corpora").iterdir())) == 3  # the splits; of shards nothing is left


def test_all_splits_are_made_in_one_pass(tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = user_files(texts)
    train = build(tmp_path, files)
    monkeypatch.setattr(building, "build_shard", None)
    valid, test = (build(tmp_path, files, split) for split in ("valid", "test"))
    assert len({train.digest, valid.digest, test.digest}) == 3


def test_held_out_files_of_their_own(tmp_path: Path, texts: Path) -> None:
    held_out = user_files(texts / "a.txt", divided=False)
    assert len(text_of(build(tmp_path, held_out, "valid"))) == 300
    assert [path.name[:11] for path in (tmp_path / "corpora").iterdir()] == ["files-valid"]


KILLED = """
import logging, sys
from pathlib import Path
from bertjax.data.corpus import building
sys.path.insert(0, sys.argv[1])
from test_building import build, user_files
building.SHARD_BYTES = 500
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
build(Path(sys.argv[2]), user_files(Path(sys.argv[3])), workers=int(sys.argv[4]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_goes_on_where_it_stopped(
    tmp_path: Path, texts: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    files, whole = user_files(texts), build(tmp_path / "whole", user_files(texts))
    here = os.fspath(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, here, tmp_path / "cache", texts, str(workers)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def done() -> list[Path]:
        return sorted((tmp_path / "cache" / "corpora").glob("files-*.shards/0*/whole"))

    wait_for(lambda: len(done()) > 3 or killed.poll() is not None)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(0.5)  # for its workers to notice
    there = [path.parent.name for path in done()]
    assert len(there) > 3
    built: list[str] = []

    def counting(folder: Path, *args: object) -> shard_worker.Done:
        done = shard_worker.build_shard(folder, *args)  # type: ignore[arg-type]
        built.extend([] if done.was_there else [folder.parent.name])
        return done

    monkeypatch.setattr(building, "build_shard", counting)
    corpus = build(tmp_path / "cache", files)
    assert corpus.digest == whole.digest
    assert not set(built) & set(there) and len(built) > 3
    assert not list((tmp_path / "cache" / "corpora").glob("*.shards"))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_damaged_shard_is_made_anew(tmp_path: Path, texts: Path) -> None:
    task = shard_worker.Task(LAYOUT, None, TOKENIZER)
    [shard] = files_module.shards([texts / "a.txt"], LAYOUT)
    assert not shard_worker.build_shard(tmp_path / "0", shard, task).was_there
    assert shard_worker.build_shard(tmp_path / "0", shard, task).was_there
    content = (tmp_path / "0" / "train.ids").read_bytes()
    (tmp_path / "0" / "train.ids").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not shard_worker.build_shard(tmp_path / "0", shard, task).was_there
    assert (tmp_path / "0" / "train.ids").read_bytes() == content


def test_two_at_once_build_it_once(tmp_path: Path, texts: Path, small_shards: None) -> None:
    here = os.fspath(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, here, tmp_path, texts, "1"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted((process.communicate()[0], process.returncode) for process in both)
    assert [code for _, code in said] == [0, 0]
    assert sum("tokenised" in text for text, _ in said) == 1
    assert {path.name.rpartition("-")[0] for path in (tmp_path / "corpora").iterdir()} == {
        "files-train",
        "files-valid",
        "files-test",
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_files_are_counted(tmp_path: Path, texts: Path, small_shards: None, workers: int) -> None:
    (texts / "d.jsonl").write_text('{"text": 1}\n' * 1030 + "{\n" * 7 + '{"text": "w1 ."}\n')
    files = user_files(texts, layout=LAYOUT._replace(on_bad="skip"))
    with pytest.warns(UserWarning) as warned:
        corpus = build(tmp_path / "cache", files, workers=workers)
    said = [str(warning.message) for warning in warned]
    assert len(said) == 11 and all("d.jsonl has no text as 'text' (data.text_field)" in line for line in said[:-1])
    assert said[-1] == (
        "skipped, in all: 1,037 files and records that cannot be read (no text as 'text': 1,030; no JSON: 7)"
    )
    assert corpus.skipped == {"no text as 'text'": 1030, "no JSON": 7}
    assert build(tmp_path / "cache", files).skipped == corpus.skipped  # from the cache
    assert corpus.folder is not None
    info = json.loads((corpus.folder / "info.json").read_text())
    (corpus.folder / "info.json").write_text(json.dumps(info | {"skipped": 1037}))  # as it was written once
    again = corpus_module.read(corpus.folder)
    assert again is not None and again.skipped == {"not told why": 1037}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_file_stops_the_build(tmp_path: Path, texts: Path, small_shards: None, workers: int) -> None:
    (texts / "d.jsonl").write_text('{"text": 1}\n')
    with pytest.raises(BertjaxError, match=r"line 1 of .*d\.jsonl has no text.*data\.on_bad: skip"):
        build(tmp_path / "cache", user_files(texts), workers=workers)
    (texts / "d.jsonl").unlink()
    assert build(tmp_path / "cache", user_files(texts), workers=workers).ids.size


def test_a_file_that_changes_while_it_is_read_stops_the_build(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = user_files(texts)

    def meanwhile(*args: Any) -> shard_worker.Done:
        with open(texts / "b.txt", "a") as file:
            file.write("w1 .")
        return shard_worker.build_shard(*args)

    monkeypatch.setattr(building, "build_shard", meanwhile)
    with pytest.raises(BertjaxError, match=r"files changed while they were read, .*/b\.txt last; start again"):
        build(tmp_path / "cache", files)
    assert not list((tmp_path / "cache" / "corpora").glob("*.shards"))
    monkeypatch.undo()
    assert build(tmp_path / "cache", user_files(texts)).ids.size


def test_a_process_that_is_killed_is_told_of(
    tmp_path: Path, texts: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    say = building._Worker._say

    def say_and_kill(worker: building._Worker, line: str) -> None:
        say(worker, line)
        worker._process.kill()

    monkeypatch.setattr(building._Worker, "_say", say_and_kill)
    with pytest.raises(BertjaxError, match="a process that tokenised .* ended with code -9.*data.workers"):
        build(tmp_path, user_files(texts), workers=2)


def test_a_split_that_no_document_falls_to(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("w1 . w2 .")
    with pytest.raises(BertjaxError, match="no document of data.path.* data.document=block .* valid.*data.eval_path"):
        build(tmp_path / "cache", user_files(tmp_path / "a.txt"), "valid")


def test_a_recipe_says_all(tiny: Config, tmp_path: Path, texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (texts / "d.jsonl").write_text("{}")
    data = DataConfig(
        "files", str(texts), cache=str(tmp_path / "cache"), sentence="line", on_bad="skip", max_length=24, workers=1
    )
    with pytest.warns(UserWarning) as warned:
        prepared = prepare(dataclasses.replace(tiny, data=data))
    counts = "1 files and records that cannot be read (no text as 'text': 1)"
    of_words, example, of_all = (str(warning.message) for warning in warned)
    assert of_words == f"skipped, of what the vocabulary is built from: {counts}"
    assert "d.jsonl has no text" in example and of_all == f"skipped, in all: {counts}"
    assert f"\nskipped:  {counts}\n" in describe(prepared)
    run = RunFolder(tmp_path / "run")
    run.create(prepared)
    for part in ("train", "held_out"):
        assert run.environment()["corpus"][part]["skipped"] == {"no text as 'text'": 1}
    (texts / "e.jsonl").write_text("[")
    data = dataclasses.replace(data, path=str(texts / "a.txt"), eval_path=str(texts / "*"))
    with pytest.warns(UserWarning):
        assert "cannot be read (no JSON: 1; no text as 'text': 1)" in describe(
            prepare(dataclasses.replace(tiny, data=data))
        )


def test_the_vocabulary_is_of_so_many_megabytes(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly from all over the files: the first and the last words of a file of 2 MB, and half of all between."""
    lines = [f"w{number} filler .\nfiller filler ." for number in range(50_000)]
    (tmp_path / "a.txt").write_text("\n\n".join(lines))
    monkeypatch.setattr(files_module.shards, "__defaults__", (50_000,))
    data = DataConfig("files", str(tmp_path / "a.txt"), cache=str(tmp_path / "cache"), sentence="line", max_length=24)
    few = dataclasses.replace(tiny, data=data, tokenizer=TokenizerConfig(min_frequency=1, max_megabytes=1))
    known = prepare(few).tokenizer
    size = (tmp_path / "a.txt").stat().st_size
    assert known.vocab_size / 50_000 == pytest.approx(1e6 / size, rel=0.1)
    ids = known.ids([f"w{number}" for number in range(0, 50_000, 50)])
    halves = np.array_split(np.array(ids) != known.vocabulary.unk, 5)
    assert all(0.3 < half.mean() < 0.8 for half in halves)
