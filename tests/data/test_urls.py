"""Text and examples at URLs are learned from as those of files are, and configurations keep the URLs."""

import dataclasses
from pathlib import Path

import fsspec
from faulty_store import FaultyStore

from bertjax.config import Config, DataConfig, TaskConfig
from bertjax.data.examples import read_rows, split
from bertjax.data.held_out import both_sides
from bertjax.data.prepare import prepare
from bertjax.data.targets import label_reader


def test_text_at_a_url_is_that_of_its_files(tiny: Config, tmp_path: Path, store: type[FaultyStore]) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "ab":
        lines = [f"A {name}{number} sees a crane. It flies over {number} fields.\n\n" for number in range(60)]
        (folder / f"{name}.txt").write_text("".join(lines))
    fsspec.filesystem("memory").put(str(folder), "/bucket/texts", recursive=True)
    data = dataclasses.replace(tiny.data, source="files", path=str(folder), eval_split="train", workers=1)
    local = prepare(dataclasses.replace(tiny, data=data))
    data = dataclasses.replace(data, path="memory://bucket/texts/a.txt:memory://bucket/texts/[b-z].txt")
    there = prepare(dataclasses.replace(tiny, data=data))
    assert there.train.digest == local.train.digest
    assert there.config.data.path == data.path  # which another machine has too


def test_examples_at_a_url(store: type[FaultyStore]) -> None:
    for name, content in {"train.csv": "text,label\ncrane,bird\n", "dev.csv": "text,label\ncar,thing\n"}.items():
        fsspec.filesystem("memory").pipe_file(f"/glue/{name}", content.encode())
    task = TaskConfig(kind="classify", train="memory://glue")
    config = Config(init_from="model", task=task, data=DataConfig())
    sides = both_sides(config, lambda path, key: read_rows(task, path, key, label_reader(task)), split)
    assert [row.item[0] for row in (*sides.train, *sides.held_out)] == ["crane", "car"]
    assert (sides.train_name, sides.held_out_name) == ("train.csv", "dev.csv")
