"""Damaged files of the user's: their documents, or a line that names them; skipped, never an error."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from answers import REFUSED, answer, damaged_bytes, json_values
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.data.sources.files import Skipped, documents, shards
from bertjax.data.sources.formats import Layout
from bertjax.data.sources.lines import Part

TEXTS = ["A crane flies. It is grey.\n\nIt lands.", "\u05d0 \u05d1. e\u0301!", ""]
PLAIN = "\n\n".join(TEXTS).encode()
JSON_LINES = b"".join(b'{"text": "A crane flies. It is grey.", "id": %d}\n' % number for number in range(9))


def parquet() -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS * 9}), sink)
    return sink.getvalue().to_pybytes()


def zstd(data: bytes) -> bytes:
    return bytes(pyarrow.compress(data, codec="zstd", asbytes=True))


WHOLE = {
    "a.txt": PLAIN,
    "a.txt.gz": gzip.compress(PLAIN, mtime=0),
    "a.txt.zst": zstd(PLAIN),
    "a.jsonl": JSON_LINES,
    "a.json": json.dumps([{"text": text} for text in TEXTS * 2], indent=1).encode(),
    "a.csv": b'id,text\n1,"A crane, it ""flies"".\nIt is grey."\n2,It lands.\n',
    "a.tsv": b'id\ttext\n1\tA "crane flies.\n2\tIt lands.\n',
    "a.parquet": parquet(),
}


def all_of(file: Path, layout: Layout, skipped: Skipped | None = None) -> list[list[list[str]]]:
    return [document for _, document in documents([Part(str(file))], layout, skipped)]


def read(file: Path, layout: Layout) -> None:
    there = answer(lambda: all_of(file, layout))
    skipped = Skipped()
    rest = all_of(file, layout._replace(on_bad="skip"), skipped)
    if there is not REFUSED:
        assert rest == there and not skipped.counts
        plan = shards([file], layout, 5)
        assert [document for shard in plan for _, document in documents(shard, layout)] == there
    else:
        assert skipped.counts and all("skipped: " in line for line in skipped.such_as)
    for (sentences,) in rest:
        assert sentences and all(sentence.strip() for sentence in sentences)


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_files(tmp_path, name):
    @given(content=damaged_bytes(WHOLE[name]) | st.binary())
    @example(WHOLE[name])
    @example(b"")
    def test(content):
        (tmp_path / name).write_bytes(content)
        read(tmp_path / name, Layout())

    test()


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    document=st.sampled_from(["file", "line", "block"]),
    sentence=st.sampled_from(["split", "line"]),
    language=st.sampled_from(["en", "ja", "he", "xx", ""]),
)
def test_text_of_every_kind(tmp_path, text, document, sentence, language):
    """Every character but white space comes out, in its order."""
    (tmp_path / "a.txt").write_bytes(text.encode())
    layout = Layout(document, sentence, language)
    read(tmp_path / "a.txt", layout)
    if "\0" not in text:
        there = "".join(sentence for (part,) in all_of(tmp_path / "a.txt", layout) for sentence in part)
        assert "".join(there.split()) == "".join(text.removeprefix("\ufeff").split())


@given(record=json_values())
def test_json_of_every_kind(tmp_path, record):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": record}))
    read(tmp_path / "a.jsonl", Layout())
