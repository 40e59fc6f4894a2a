"""Arrow's files and streams, what `datasets` saves, and folders of several splits."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from bertjax.data.sources import columnar
from bertjax.data.sources.files import find_files
from bertjax.data.sources.formats import LAYOUT, parts_of
from bertjax.data.sources.lines import BadError, Part
from bertjax.data.sources.records import records, texts
from bertjax.data.sources.splits import find_held_out, find_split
from bertjax.errors import BertjaxError

# What `datasets` says of columns in the schema of all that it writes.
FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
    "tags": {"feature": {"names": ["O", "B-x"], "_type": "ClassLabel"}, "_type": "List"},
    "old": [{"names": ["a", "b"], "_type": "ClassLabel"}],
}
ROWS = [{"text": f"text {n}", "label": n % 3 - 1, "tags": [n % 2, 1], "old": [0]} for n in range(6)]
READ = [
    {"text": f"text {n}", "label": (None, "no", "yes")[n % 3], "tags": [("O", "B-x")[n % 2], "B-x"], "old": ["a"]}
    for n in range(6)
]


def table_of(rows: list[dict[str, Any]], features: Any = FEATURES) -> pyarrow.Table:
    told = json.dumps({"info": {"features": features}})
    return pyarrow.Table.from_pylist(rows).replace_schema_metadata({"huggingface": told})


def write(table: pyarrow.Table, file: Path, *, stream: bool = True) -> Path:
    make = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with make(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return file


def save(folder: Path, rows: list[dict[str, Any]], shards: int = 1) -> Path:
    """Makes a folder as `Dataset.save_to_disk` lays it out."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{shards:05}.arrow" for number in range(shards)]
    for number, name in enumerate(names):
        write(table_of(rows[number::shards]), folder / name)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


def read(file: Path, fields: dict[str, str] | None = None) -> list[Any]:
    return [record for _, record in records(Part(str(file)), fields)]


@pytest.mark.parametrize("rows_at_once", [256, 1])
def test_rows_of_arrow_and_parquet_have_the_names_of_their_labels(
    tmp_path: Path, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar, "_ROWS_AT_ONCE", rows_at_once)
    pyarrow.parquet.write_table(table_of(ROWS), tmp_path / "a.parquet")
    for file in (
        write(table_of(ROWS), tmp_path / "a.arrow"),
        write(table_of(ROWS), tmp_path / "b.arrow", stream=False),
        tmp_path / "a.parquet",
    ):
        assert read(file) == READ, file
        places = [str(place) for place, _ in records(Part(str(file)))]
        assert places == [f"row {number} of {file}" for number in range(1, 7)]
        assert read(file, {"label": "task.label"}) == [{"label": row["label"]} for row in READ]
        assert list(texts(Part(str(file)), "text")) == [row["text"] for row in READ]
        with pytest.raises(BadError, match="has no column 'body' .task.text., but text, label, tags, old"):
            read(file, {"body": "task.text"})
        assert parts_of(file, LAYOUT, 16) and parts_of(file, LAYOUT, 16)[0].end != 0


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": {"label": 3}}}', b'{"info": {"features": [1]}}']
)
def test_what_says_nothing_of_labels_is_no_matter(tmp_path: Path, metadata: bytes) -> None:
    table = pyarrow.Table.from_pylist(ROWS).replace_schema_metadata({"huggingface": metadata})
    assert read(write(table, tmp_path / "a.arrow")) == ROWS


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for stream in (True, False):
        whole = write(table_of(ROWS), tmp_path / "a.arrow", stream=stream).read_bytes()
        for damaged in (b"", whole[:99], whole[: len(whole) // 2], b"text\n" * 20):
            (tmp_path / "a.arrow").write_bytes(damaged)
            with pytest.raises(BadError, match="a.arrow is no Arrow file that can be read"):
                read(tmp_path / "a.arrow")


def test_a_flipped_bit_is_read_or_said(tmp_path: Path) -> None:
    """What a file says of its own buffers leads nowhere else."""
    whole, choose, said = write(table_of(ROWS), tmp_path / "a.arrow").read_bytes(), random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[choose.randrange(len(whole))] ^= 1 << choose.randrange(8)
        (tmp_path / "a.arrow").write_bytes(damaged)
        try:
            assert all(isinstance(record, dict) for record in read(tmp_path / "a.arrow"))
        except BadError as error:
            said += "a.arrow" in str(error) and "\n" not in str(error)
    assert said > 10
    (tmp_path / "a.arrow").write_bytes(b"\xff\xff\xff\xff\xff\xff\xff\x7f" + whole[8:])
    with pytest.raises(BadError, match="a.arrow is no Arrow file that can be read"):
        read(tmp_path / "a.arrow")


def test_a_saved_dataset_is_the_files_with_its_rows(tmp_path: Path) -> None:
    saved = save(tmp_path / "more" / "saved", ROWS, shards=2)
    for path in (saved, tmp_path):  # wherever it is met
        assert [file.name for file in find_files(str(path))] == [
            "data-00000-of-00002.arrow",
            "data-00001-of-00002.arrow",
        ]
    found = [row for file in find_files(str(saved)) for row in read(file)]
    assert sorted(found, key=lambda row: row["text"]) == READ
    state = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(BertjaxError, match="rows of a dataset that are chosen among others; save it by a newer"):
        find_files(str(saved))
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../secret.arrow"}]}))
    assert all(file.parent == saved for file in find_files(str(saved)))  # nothing beside it is read


def test_splits_go_by_their_names(tmp_path: Path) -> None:
    saved = tmp_path / "dict"
    for split in ("train", "validation", "test"):
        save(saved / split, ROWS)
    (saved / "dataset_dict.json").write_text('{"splits": ["train", "validation", "test"]}')
    glue, mnli, alone, shards = (tmp_path / name for name in ("CoLA", "MNLI", "alone", "shards"))
    for folder, names in (
        (glue, ["train.tsv", "dev.tsv", "test.tsv", "original", "README.md"]),
        (mnli, ["train.tsv", "dev_mismatched.tsv", "dev_matched.tsv", "test_matched.tsv", "test_mismatched.tsv"]),
        (alone, ["train.csv.gz", "training.log", ".train.csv.swp"]),
        (shards, ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.jsonl", "test.csv"]),
    ):
        folder.mkdir()
        for name in random.Random(0).sample(names, len(names)):
            (folder / name).touch()

    def splits(folder: Path) -> list[str | None]:
        told = [find_split(str(folder), "train", "task.train"), find_held_out(str(folder), "task.eval")]
        return [None if one is None else os.path.relpath(one, folder) for one in told]

    assert splits(saved) == ["train", "validation"] and splits(glue) == ["train.tsv", "dev.tsv"]
    assert splits(mnli) == ["train.tsv", "dev_matched.tsv"] and splits(alone) == ["train.csv.gz", None]
    assert splits(shards) == ["train-*-of-*.parquet", None]
    assert len(find_files(find_split(str(shards), "train", "task.train"))) == 2
    assert find_split(str(glue), "test", "--input") == str(glue / "test.tsv")
    for folder, reason in (
        (
            mnli,
            "MNLI has no test split, but dev_matched, .*, test_matched, test_mismatched, train; give --input a file",
        ),
        (shards, "shards has several for test: test.csv, test.jsonl; give --input one of them"),
    ):
        with pytest.raises(BertjaxError, match=reason):
            find_split(str(folder), "test", "--input")
    for path in (str(saved / "test"), str(glue / "dev.tsv"), "none", str(tmp_path)):  # none of which has splits
        assert find_split(path, "test", "--input") == path and find_held_out(path, "task.eval") is None
    (glue / "train.tsv").unlink()
    assert find_split(str(glue), "test", "--input") == str(glue)  # all of it, as of any folder
