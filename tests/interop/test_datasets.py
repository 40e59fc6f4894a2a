"""Folders that `datasets` saves: their splits, rows and names of labels are read as it reads them itself."""

from pathlib import Path
from typing import Any

import pytest

from bertjax.config import TaskConfig
from bertjax.data.examples import read_records
from bertjax.data.sources.splits import find_held_out, find_split
from bertjax.data.tagged import sorted_sentences

datasets = pytest.importorskip("datasets", reason="it is not installed; make test-interop installs it")
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend


def test_saved_splits_are_read_with_the_names_of_their_labels(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"text": [f"text {n}" for n in range(10)], "label": [n % 2 for n in range(10)]}
    columns |= {"words": [["a", f"b{n}"] for n in range(10)], "tags": [[0, n % 2] for n in range(10)]}
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "words": datasets.Sequence(datasets.Value("string")),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-x"])),
        }
    )
    whole = datasets.Dataset.from_dict(columns, features=features)
    splits = {"train": whole.shuffle(seed=1), "validation": whole.select([3, 1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved", num_shards={"train": 3, "validation": 1})
    whole.to_parquet(tmp_path / "a.parquet")

    def read(path: str) -> list[tuple[str, str]]:
        needed = {"text": "task.text"}
        return [(record["text"], record["label"]) for _, record in read_records(path, needed, "task.train")]

    train = find_split(str(tmp_path / "saved"), "train", "task.train")
    expected = [(row["text"], features["label"].int2str(row["label"])) for row in splits["train"]]
    assert read(train) == expected and sorted(read(str(tmp_path / "a.parquet"))) == sorted(expected)
    assert read(find_held_out(str(tmp_path / "saved"), "task.eval") or "") == [("text 3", "yes"), ("text 1", "yes")]
    sentences = sorted_sentences(TaskConfig("tag", text="words", label="tags"), train, "task.train")
    assert {one.words: one.tags for one in sentences} == {("a", f"b{n}"): ("O", ("O", "B-x")[n % 2]) for n in range(10)}
