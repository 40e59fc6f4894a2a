"""What stands in a file in place of text, and text that stands in it in an unusual way."""

import gzip
import re
from pathlib import Path

import pyarrow
import pytest
from refusals import refusal

from bertjax.data.sources.files import Skipped, documents, shards
from bertjax.data.sources.formats import Layout
from bertjax.data.sources.lines import Kind, Part, kind_of, lines


def of(file: Path) -> list[list[str]]:
    return [sentences for _, (sentences,) in documents([Part(str(file))], Layout())]


@pytest.mark.parametrize(
    "name, kind",
    [
        ("a.jsonl", Kind("jsonl", None)),
        ("a.JSONL", Kind("jsonl", None)),
        ("a.b.Ndjson.GZ", Kind("jsonl", ".gz")),
        ("a.Txt.Zst", Kind("text", ".zst")),
        ("a.CSV", Kind("csv", None)),
        ("a.tsv.gz", Kind("tsv", ".gz")),
        ("a.Parquet", Kind("parquet", None)),
        ("a.json.txt", Kind("text", None)),
        ("a.gz", Kind("text", ".gz")),
        ("json", Kind("text", None)),
    ],
)
def test_the_kind_of_a_file_is_told_by_its_name(name: str, kind: Kind) -> None:
    assert kind_of(Path("folder.csv", name)) == kind


def test_capitals_are_read_as_small_letters_are(tmp_path: Path) -> None:
    (tmp_path / "a.JSONL").write_text('{"text": "One."}\n')
    (tmp_path / "a.Txt.GZ").write_bytes(gzip.compress(b"One."))
    assert of(tmp_path / "a.JSONL") == of(tmp_path / "a.Txt.GZ") == [["One."]]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet", "a.txt.gz", "a.jsonl.zst"])
def test_a_pointer_is_no_text(tmp_path: Path, name: str) -> None:
    size = "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\n{size}")
    assert f"{name} holds a pointer in place of its text (fetch that by git lfs pull)" in refusal(of, tmp_path / name)
    (tmp_path / name).write_text("/annex/objects/SHA256E-s12345--4d7a\n")
    assert "git annex get" in refusal(of, tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    for name, pack in (("a.txt", bytes), ("a.csv.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack("text\nOne.\n".encode(encoding)))
        assert f"{name} is UTF-16 or UTF-32 (convert it, as iconv -t UTF-8 does)" in refusal(of, tmp_path / name)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.tsv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str) -> None:
    content = {"a.txt": "One.", "a.jsonl": '{"text": "One."}', "a.json": '[{"text": "One."}]'}.get(name, "text\nOne.")
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert of(tmp_path / name) == [["One."]]


# zstd.


def zstd(text: bytes) -> bytes:
    return pyarrow.compress(text, codec="zstd", asbytes=True)


def large_window(text: bytes) -> bytes:
    """A frame such as --long=31 writes, of one block that is not compressed."""
    window = (31 - 10) << 3
    return bytes.fromhex("28b52ffd00") + bytes([window]) + (len(text) << 3 | 1).to_bytes(3, "little") + text


SKIPPABLE = bytes.fromhex("502a4d1804000000") + b"abcd"


@pytest.mark.parametrize(
    "content",
    [
        large_window(b"One.\n\nTwo."),
        zstd(b"One.\n") + zstd(b"\nTwo."),
        SKIPPABLE + zstd(b"One.\n") + SKIPPABLE + large_window(b"\nTwo.") + SKIPPABLE,
    ],
    ids=["a large window", "several frames", "frames to be skipped"],
)
def test_frames_of_zstd(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt.zst").write_bytes(content)
    assert of(tmp_path / "a.txt.zst") == [["One."], ["Two."]]


# Files that change.


@pytest.mark.parametrize("kept", [490, 8])
def test_a_file_that_becomes_shorter_is_told_of(tmp_path: Path, kept: int) -> None:
    """By every part of it that lacks text: the parts were planned when all of it was there. No half line is read."""
    file = tmp_path / "a.txt"
    file.write_bytes(b"One.\n\nTwo.\n\n" * 50)
    plan = shards([file], Layout(), 12)
    assert len(plan) == 50
    file.write_bytes(file.read_bytes()[:kept])
    parts = [part for shard in plan for part in shard]
    assert re.search(r"a\.txt is \d+ bytes shorter than when it was found", refusal(list, documents(parts, Layout())))
    skipped = Skipped()
    there = list(documents(parts, Layout(on_bad="skip"), skipped))
    assert skipped.counts == {"shorter than it was": 50 - kept // 12} and len(there) == kept // 6


def test_a_file_that_becomes_longer_is_read_as_far_as_it_was_found(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"One.\nTwo.\n")
    [[part]] = shards([file], Layout())
    with open(file, "ab") as more:
        more.write(b"Three.\n")
    assert [line for _, line in lines(part, 100)][:2] == ["One.\n", "Two.\n"]
    assert "Three.\n" not in [line for _, line in lines(part, 100)]
