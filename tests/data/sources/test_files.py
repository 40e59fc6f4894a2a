"""The user's own files, of every kind and in every state, become documents, or are named."""

import dataclasses
import gzip
import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from faulty_store import FaultyStore
from refusals import refusal

from bertjax.config import Config, DataConfig
from bertjax.config.recipes import load_config
from bertjax.data.prepare import prepare
from bertjax.data.sources import formats, lines, records
from bertjax.data.sources.files import MAX_SENTENCES, Skipped, documents, find_files, fingerprint, shards
from bertjax.data.sources.formats import Layout
from bertjax.data.sources.lines import Part
from bertjax.errors import BertjaxError
from bertjax.storage.fetch import here

TEXT = "A crane flies. Dr. Fox\nsaw it!\n\n\n  It was grey. \r\nThe end\n"
RECORDS = ["A crane flies. It is grey.", "Cranes lift.\n\nThey are tall."]
SENTENCES = [["A crane flies.", "It is grey."], ["Cranes lift.", "They are tall."]]


def of(file: Path, **layout: str) -> list[list[str]]:
    """The sentences of each document; none is long enough to come in parts."""
    return [sentences for _, (sentences,) in documents([Part(str(file))], Layout(**layout))]


def all_of(files: list[Path], layout: Layout, skipped: Skipped | None = None) -> list[list[list[str]]]:
    return [document for _, document in documents([Part(str(file)) for file in files], layout, skipped)]


def parquet(column: str = "text", records: list = RECORDS, row_group_size: int | None = None) -> bytes:
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.table({"id": range(len(records)), column: records})
    pyarrow.parquet.write_table(table, sink, row_group_size=row_group_size)
    return sink.getvalue().to_pybytes()


def json_lines(records: list = RECORDS) -> bytes:
    return "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in records).encode()


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "document, sentence, expected",
    [
        ("block", "split", [["A crane flies.", "Dr. Fox saw it!"], ["It was grey.", "The end"]]),
        ("block", "line", [["A crane flies. Dr. Fox", "saw it!"], ["It was grey.", "The end"]]),
        ("file", "split", [["A crane flies.", "Dr. Fox saw it!", "It was grey.", "The end"]]),
        ("file", "line", [["A crane flies. Dr. Fox", "saw it!", "It was grey.", "The end"]]),
        ("line", "split", [["A crane flies.", "Dr. Fox"], ["saw it!"], ["It was grey."], ["The end"]]),
        ("line", "line", [["A crane flies. Dr. Fox"], ["saw it!"], ["It was grey."], ["The end"]]),
    ],
)
def test_plain_text(tmp_path: Path, document: str, sentence: str, expected: list[list[str]]) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert of(tmp_path / "a.txt", document=document, sentence=sentence) == expected


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["", "gz", "zst"])
@pytest.mark.parametrize(
    "name, data", [("a.jsonl", json_lines()), ("a.ndjson", json_lines()), ("a.parquet", parquet())]
)
def test_records_are_documents(tmp_path: Path, name: str, data: bytes, pack: Callable[[bytes], bytes]) -> None:
    file = tmp_path / (name + {gzip.compress: ".gz", zstd: ".zst"}.get(pack, ""))
    file.write_bytes(pack(data))
    assert of(file) == SENTENCES


@pytest.mark.parametrize("pack, suffix", [(gzip.compress, ".gz"), (zstd, ".zst")])
def test_compressed_text(tmp_path: Path, pack: Callable[[bytes], bytes], suffix: str) -> None:
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(TEXT.encode()))
    assert of(tmp_path / f"a.txt{suffix}") == [["A crane flies.", "Dr. Fox saw it!"], ["It was grey.", "The end"]]


def test_a_language_has_its_own_sentence_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("今日は晴れ。明日は雨。", encoding="utf-8")
    assert of(tmp_path / "a.txt", language="ja") == [["今日は晴れ。", "明日は雨。"]]


def test_another_field(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet("body"))
    assert of(tmp_path / "a.parquet", field="body") == SENTENCES


def test_a_long_document_comes_in_parts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"Line {number}.\n" for number in range(MAX_SENTENCES + 7)))
    for document in ("block", "file"):
        parts = all_of([tmp_path / "a.txt"], Layout(document=document, sentence="line"))
        assert [len(sentences) for (sentences,) in parts] == [MAX_SENTENCES, 7]
        assert sum((sentences for (sentences,) in parts), [])[-1] == f"Line {MAX_SENTENCES + 6}."


LINES = "\ufeffFünf. Six\r\nseven?\rEight\n \t\n\r\n  Nine. 今日は。 \n\n\nLast one of all".encode()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("document", ["file", "line", "block"])
def test_a_line_may_be_read_in_pieces(
    tmp_path: Path, document: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_bytes(LINES)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(LINES))
    whole = of(tmp_path / "a.txt", document=document)
    assert sum(whole, [])[-2:] == ["今日は。", "Last one of all"]
    monkeypatch.setattr(formats, "_PIECE", size)
    assert of(tmp_path / "a.txt", document=document) == of(tmp_path / "a.txt.gz", document=document) == whole


def test_a_line_of_any_length_is_read_with_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sentences as in many lines; of which none is cut where a line ends."""
    monkeypatch.setattr(formats, "_PIECE", 1 << 10)
    monkeypatch.setattr("bertjax.data.sources.files.MAX_SENTENCES", 100)
    sentences = [f"Crane number {number} flies over the “grey. Or brown” water." for number in range(2_000)]
    (tmp_path / "one.txt").write_text(" ".join(sentences))
    (tmp_path / "many.txt").write_text(" ".join(sentences).replace(" f", "\nf").replace(" w", "\nw"))
    for name in ("one.txt", "many.txt"):
        tracemalloc.start()
        found = 0
        for _, (some,) in documents([Part(str(tmp_path / name))], Layout()):
            assert some == sentences[found : found + len(some)]
            found += len(some)
        assert found == len(sentences) and tracemalloc.get_traced_memory()[1] < 200_000
        tracemalloc.stop()


def test_a_record_may_not_be_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_LONGEST", 100)
    (tmp_path / "a.jsonl").write_bytes(json_lines(["One.", 9 * "Long. "]))
    assert len(of(tmp_path / "a.jsonl")) == 2
    (tmp_path / "a.jsonl").write_bytes(json_lines(["One.", 30 * "Long. "]))
    with pytest.raises(BertjaxError, match="a.jsonl has no records: more than 100 bytes are in line 2"):
        of(tmp_path / "a.jsonl")


# Splits.


def test_every_document_has_one_split_whatever_its_file(tmp_path: Path) -> None:
    texts = [f"Document {number}. It ends." for number in range(3000)]
    (tmp_path / "one.jsonl").write_bytes(json_lines(texts))
    (tmp_path / "a.jsonl").write_bytes(json_lines(texts[1500:]))
    (tmp_path / "b.jsonl").write_bytes(json_lines(texts[:1500]))

    def found(*names: str) -> list[tuple[str, str]]:
        parts = [Part(str(tmp_path / name)) for name in names]
        return sorted((split, sentences[0]) for split, (sentences,) in documents(parts, Layout()))

    of_one = found("one.jsonl")
    assert of_one == found("a.jsonl", "b.jsonl")
    assert sorted(sentence for _, sentence in of_one) == sorted(text.split(" It")[0] for text in texts)
    splits = [split for split, _ in of_one]
    for split in ("valid", "test"):
        assert 15 < splits.count(split) < 45  # 30, within 2.7 standard deviations


# Cut into shards.


@pytest.mark.parametrize("size", [1, 7, 40, 300])
@pytest.mark.parametrize(
    "name, data, document",
    [
        ("a.txt", "\ufeffOne.\nTwo.\n \n\nThree.\r\n\r\nF\u00fcnf.\n\nSix\n".encode(), "block"),
        ("a.txt", b"One.\nTwo.\n \n\nThree.\r\n\r\nFour.\n\nSix\n", "line"),
        ("a.txt", b"\n\nOne.\rTwo.\r\rThree.", "block"),
        ("a.jsonl", json_lines([f"Record {number}." for number in range(40)]), "block"),
        ("a.jsonl.gz", gzip.compress(json_lines(), mtime=0), "block"),
        ("a.parquet", parquet(records=[f"Record {number}." for number in range(40)], row_group_size=3), "block"),
        ("a.json", json_lines([f"Record {number}." for number in range(40)]), "block"),
        ("a.json", json.dumps([{"text": f"Record {number}."} for number in range(40)], indent=1).encode(), "block"),
        ("a.csv", b'id,text\n1,"One.\n\nTwo."\n2,Three.\n' * 9, "line"),
        ("a.tsv", b"text\tid\nOne.\t1\nTwo.\t2\n" * 9, "block"),
    ],
    ids=[
        "blocks",
        "lines",
        "old ends of lines",
        "JSON lines",
        "compressed",
        "Parquet",
        "JSON",
        "array",
        "CSV",
        "TSV",
    ],  # bytes may hold a time
)
def test_documents_are_the_same_however_files_are_cut(
    tmp_path: Path, name: str, data: bytes, document: str, size: int
) -> None:
    for folder in ("1", "2", "3"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(data)
    files, layout = find_files(str(tmp_path)), Layout(document=document)
    plan = shards(files, layout, size)
    assert [own for shard in plan for own in documents(shard, layout)] == [
        own for file in files for own in documents([Part(str(file))], layout)
    ]
    if size < 100 and name in ("a.jsonl", "a.parquet"):
        assert len(plan) > 12
    if size == 300 and len(data) < 100:
        assert len(plan) == 1


def test_shards_are_of_the_size_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "large.txt").write_bytes(b"One.\n\n" * 1000)
    for number in range(100):
        (tmp_path / f"small{number}.txt").write_bytes(b"One.\n\n" * 10)
    plan = shards(find_files(str(tmp_path)), Layout(), 500)
    sizes = [sum(part.size for part in shard) for shard in plan]
    assert sum(sizes) == pytest.approx(12_000, abs=20) and len(plan) in (24, 25)
    assert all(400 < size < 600 for size in sizes[:-1])


def test_a_file_is_looked_through_once_for_its_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_from: list[int] = []

    def counted(opened: Any, at: int, cut_after: Any = formats._cut_after, **options: Any) -> int:
        looked_from.append(at)
        return cut_after(opened, at, **options)

    monkeypatch.setattr(formats, "_cut_after", counted)
    (tmp_path / "a.txt").write_bytes(b"One.\n" * 100 + b"\n" + b"Two.\n" * 100)
    assert [[part[1:3] for part in shard] for shard in shards([tmp_path / "a.txt"], Layout(), 50)] == [
        [(0, 501)],
        [(501, 1001)],
    ]
    assert looked_from == [50, 550]


def test_a_line_is_named_by_its_number_in_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines() * 10 + b"{}\n" + json_lines() * 10)
    (tmp_path / "a.txt").write_bytes(b"x\n\n" * 250 + b"\xff\n" + b"x\n\n" * 250)
    for name, complaint in (("a.jsonl", "line 21 of .*a.jsonl has no text"), ("a.txt", "a.txt is not UTF-8.*line 501")):
        plan = shards([tmp_path / name], Layout(), 100)
        assert len(plan) > 5
        with pytest.raises(BertjaxError, match=complaint):
            [own for shard in plan for own in documents(shard, Layout())]


def test_the_lines_before_a_part_are_counted_once_for_all_its_complaints(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n" * 1000)
    plan = shards([tmp_path / "a.jsonl"], Layout(), 600)
    lines.lines_before.cache_clear()
    skipped = Skipped()
    assert not [own for shard in plan for own in documents(shard, Layout(on_bad="skip"), skipped)]
    assert skipped.counts.total() == 1000 and lines.lines_before.cache_info().misses == len(plan) == 5


# Which files.


def test_files_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["b.txt", "a/c.jsonl", "a/d/e.txt.gz", ".hidden", "a/.git/config"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")

    def found(path: str) -> list[str]:
        return [os.path.relpath(file, tmp_path) for file in find_files(path)]

    assert found(f"{tmp_path}") == ["a/c.jsonl", "a/d/e.txt.gz", "b.txt"]
    assert found(f"{tmp_path}/a/**/*.gz") == ["a/d/e.txt.gz"]
    assert found(f"{tmp_path}/b.txt{os.pathsep}{tmp_path}/a/*.jsonl{os.pathsep}{tmp_path}/b.txt") == [
        "b.txt",
        "a/c.jsonl",
    ]
    assert found(f"{tmp_path}/.hidden") == [".hidden"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found("~/b.txt") == ["b.txt"]
    assert found(f"{tmp_path}/**/*.gz") == found(f"{tmp_path}/**/d/*") == ["a/d/e.txt.gz"]
    assert found(f"{tmp_path}/**") == found(f"{tmp_path}/**/*") == ["a/c.jsonl", "a/d/e.txt.gz", "b.txt"]
    assert found(f"{tmp_path}/**/d/**/e.*") == ["a/d/e.txt.gz"]
    monkeypatch.chdir(tmp_path)
    assert [str(file) for file in find_files("**/c.*")] == [str(file) for file in find_files("a/*l")] == ["a/c.jsonl"]
    for nothing in (f"{tmp_path}/*.csv", f"{tmp_path}/a/.git", ""):
        (tmp_path / "a" / ".git" / "config").unlink(missing_ok=True)
        with pytest.raises(BertjaxError, match="there is no file at"):
            find_files(nothing)


def test_links_are_followed_once(tmp_path: Path) -> None:
    """Also those to a folder above them, of which two together made a pattern's matches endless."""
    (tmp_path / "texts" / "real").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("texts/real/a.txt", "elsewhere/b.txt"):
        (tmp_path / name).write_text("One.")
    for name, to in (("1", "."), ("2", ".."), ("again", "real"), ("z", "../elsewhere"), ("a.txt", "real/a.txt")):
        (tmp_path / "texts" / name).symlink_to(to)
    (tmp_path / "texts" / "y").symlink_to(tmp_path / "elsewhere")
    for path in ("texts", "texts/**", "texts/**/*.txt", "texts/1/**/*.txt"):
        assert sorted(file.resolve() for file in find_files(str(tmp_path / path))) == [
            tmp_path / "elsewhere" / "b.txt",
            tmp_path / "texts" / "real" / "a.txt",
        ]
    assert len(find_files(f"{tmp_path}/texts{os.pathsep}{tmp_path}/elsewhere{os.pathsep}{tmp_path}/texts/2")) == 2
    (tmp_path / "texts" / "lost").symlink_to("nowhere")
    assert "texts/lost: No such file" in refusal(fingerprint, find_files(f"{tmp_path}/texts"), Layout())


def test_what_is_no_file_of_text_is_left_out_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.txt").write_text("One.")
    for path in (tmp_path, tmp_path / "*", tmp_path / "**"):
        assert find_files(str(path)) == [tmp_path / "a.txt"]
    for path in (str(tmp_path / "pipe"), os.devnull):
        assert f"{path} is a pipe or a device" in refusal(find_files, path)

    def denied(folder: Any) -> Any:
        raise PermissionError(13, "Permission denied", os.fspath(folder))

    monkeypatch.setattr(os, "scandir", denied)
    assert f"cannot read {tmp_path}: Permission denied; make it readable" in refusal(find_files, str(tmp_path))


def test_names_with_a_colon_and_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: type[FaultyStore]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.txt", "c.txt", "d:e/f:g.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("One.")
    for path, names in (
        ("a:b.txt", ["a:b.txt"]),
        ("c.txt:a:b.txt", ["c.txt", "a:b.txt"]),
        ("a:b.txt:d:e:c.txt", ["a:b.txt", "d:e/f:g.txt", "c.txt"]),
        ("d:e/f:g.txt:?.txt", ["d:e/f:g.txt", "c.txt"]),
    ):
        assert [str(file) for file in find_files(path)] == names
    fsspec.filesystem("memory").pipe_file("a/b.txt", b"Two.")
    for path in ("c.txt:memory://a/b.txt", f"file://{tmp_path}/c.txt:memory://a/b.txt:c.txt"):
        assert [file.read_text() for file in find_files(here(path))] == ["One.", "Two."]


def test_the_fingerprint_tells_what_changes_the_documents(tmp_path: Path) -> None:
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for file in files:
        file.write_text("x")
        os.utime(file, ns=(1, 1))
    seen = {
        fingerprint(files, Layout()),
        fingerprint(files[::-1], Layout()),
        fingerprint(files, Layout(document="file")),
    }
    os.utime(files[0], ns=(1, 2))
    seen.add(fingerprint(files, Layout()))
    files[0].write_text("xy")
    os.utime(files[0], ns=(1, 1))
    assert len(seen | {fingerprint(files, Layout())}) == 5


# Bad ones.

BAD = [
    ("a.txt", b"One. Two.\n\nThree\xff.", "a.txt is not UTF-8 text in line 3"),
    ("a.txt", b"One. Two.\n\nThree\0.", "a.txt is no text: there is a NUL in line 3"),
    ("a.txt.gz", gzip.compress(b"One. Two." * 1000, mtime=0)[:-9], "a.txt.gz cannot be read"),
    ("a.txt.gz", b"One. Two.", "a.txt.gz cannot be read"),
    ("a.txt.zst", zstd(np.random.default_rng(0).bytes(1000).hex().encode())[:-100], "a.txt.zst cannot be read"),
    ("a.txt.zst", b"One. Two.", "a.txt.zst cannot be read"),
    ("a.jsonl", b'{"text": "One."}\n{"text": 1}\n', "line 2 of .*a.jsonl has no text as 'text'"),
    ("a.jsonl", b'{"body": "One."}\n', "line 1 of .*a.jsonl has no text as 'text'"),
    ("a.jsonl", b"[1]\n\n", "line 1 of .*a.jsonl has no text"),
    ("a.jsonl", b'{"text": "One."\n', "line 1 of .*a.jsonl is no JSON"),
    ("a.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", "line 1 of .*a.jsonl is no JSON"),
    ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1 of .*a.jsonl holds half a character"),
    ("a.parquet", parquet()[:-9], "a.parquet is no Parquet file"),
    ("a.parquet", b"", "a.parquet is no Parquet file"),
    ("a.parquet", parquet("body"), "a.parquet has no column 'text' .* but id, body"),
    ("a.parquet", parquet(records=["One.", None]), "row 2 of .*a.parquet has no text"),
]


@pytest.mark.parametrize("name, data, complaint", BAD, ids=[complaint for _, _, complaint in BAD])
def test_bad_files_are_named_and_stop_or_are_skipped(tmp_path: Path, name: str, data: bytes, complaint: str) -> None:
    files = [tmp_path / name, tmp_path / "z.txt"]
    files[0].write_bytes(data)
    files[1].write_text("Last.")
    with pytest.raises(BertjaxError, match=f"{complaint}.*data.on_bad: skip"):
        all_of(files, Layout())
    skipped = Skipped()
    assert all_of(files, Layout(on_bad="skip"), skipped)[-1] == [["Last."]]
    assert list(skipped.counts.values()) == [1] and re.search(f"skipped: .*{complaint}", skipped.such_as[0])


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(BertjaxError, match=r"a\.txt cannot be read"):
        of(tmp_path / "a.txt")
    with pytest.raises(BertjaxError, match=r"cannot read .*a\.txt: No such file"):
        fingerprint([tmp_path / "a.txt"], Layout())


# As a recipe's source.


@pytest.mark.parametrize(
    "overrides, complaint",
    [
        (["data.source=files"], "data.source=files needs data.path"),
        (["data.source=files", "data.path="], "data.source=files needs data.path"),
        (["data.eval_path=x"], "data.eval_path=x has no effect with data.source=wikitext-2"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, overrides: list[str], complaint: str) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 1")
    with pytest.raises(BertjaxError, match=complaint):
        load_config(tmp_path / "recipe.yaml", overrides)


def test_no_pair_crosses_the_end_of_a_document(tiny: Config, tmp_path: Path) -> None:
    records = [" ".join(f"d{number} s{sentence} ." for sentence in range(3)) for number in range(400)]
    (tmp_path / "a.jsonl").write_bytes(json_lines([record.replace(" . ", " .\n") for record in records]))
    data = DataConfig("files", str(tmp_path / "a.jsonl"), cache=str(tmp_path / "cache"), sentence="line", max_length=24)
    prepared = prepare(dataclasses.replace(tiny, data=data))
    assert prepared.config.data == data and prepared.train.name == "files/train"
    corpus, tokenizer = prepared.train, prepared.tokenizer
    pairs = prepared.train_batches._stream.draw(np.arange(prepared.train_batches.num_sequences))
    nexts = pairs.take(pairs.is_next_n)
    first, second = (tokenizer.tokens(corpus.ids[starts]) for starts in (nexts.start_a_n, nexts.start_b_n))
    assert len(first) > 300 and first == second  # both begin with their document's name
    assert len(corpus.paragraphs) - 1 + len(prepared.held_out.paragraphs) - 1 <= 400
