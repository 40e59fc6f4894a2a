"""Folders with several splits of one set of examples, and the folders that `datasets` saves."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bertjax.data.sources.lines import COMPRESSED
from bertjax.errors import BertjaxError
from bertjax.storage.paths import user_path

ExampleSplit = Literal["train", "validation", "test"]

# What a split's file, or folder, is called before its ending, the first that is there. GLUE has a "dev".
_NAMES: dict[ExampleSplit, Sequence[str]] = {
    "train": ["train"],
    "validation": ["validation", "valid", "val", "dev", "validation_matched", "dev_matched"],
    "test": ["test"],
}
_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".txt", ".conll", ".conllu")
SAVED_SPLITS = "dataset_dict.json"  # in a folder that `DatasetDict.save_to_disk` made
_SHARD = re.compile(r"-\d+-of-\d+$")


def find_split(path: str, split: ExampleSplit, key: str) -> str:
    """Returns where a split of a folder is that has several, or the path itself where it is no such folder.

    Such a folder has a file or a folder called "train", with any ending of examples; so have those of GLUE, as it is
    published, and those that `DatasetDict.save_to_disk` makes.

    Args:
      key: the option that gave the path.

    Raises:
      BertjaxError: the folder has no such split, or more than one file of its name.
    """
    if (there := _splits(path)) is None:
        return path
    name = next((name for name in _NAMES[split] if name in there), None)
    if name is None:
        known = ", ".join(sorted(there))
        raise BertjaxError(
            f"{path} has no {split} split, but {known}; give {key} a file or a folder, such as "
            f"{os.path.join(path, there[sorted(there)[0]][0])}"
        )
    return _only(path, name, there[name], key)


def find_held_out(path: str | None, key: str) -> str | None:
    """Returns where the validation split of a folder of splits is; None where it has none, or is no such folder."""
    there = None if path is None else _splits(path)
    name = next((name for name in _NAMES["validation"] if name in there), None) if there else None
    return None if name is None or there is None or path is None else _only(path, name, there[name], key)


def saved_files(folder: str) -> list[str] | None:
    """Returns the names of the files with the rows of a folder that `Dataset.save_to_disk` made; None of another.

    Raises:
      BertjaxError: its rows are not those of the files, but chosen among them.
    """
    try:
        state = json.loads(Path(folder, "state.json").read_text(encoding="utf-8"))
        names = [file["filename"] for file in state["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if state.get("_indices_data_files"):
        raise BertjaxError(f"{folder} has rows of a dataset that are chosen among others; save it by a newer datasets")
    return names if all(isinstance(name, str) and name == os.path.basename(name) for name in names) else None


def _splits(path: str) -> dict[str, list[str]] | None:
    """Returns the names of the files and folders of each split that a folder has, whatever it is called."""
    folder = user_path(path)
    if not folder.is_dir() or saved_files(str(folder)) is not None:
        return None
    found: dict[str, list[str]] = {}
    if (folder / SAVED_SPLITS).is_file():
        return {entry.name: [entry.name] for entry in sorted(folder.iterdir()) if entry.is_dir()}
    for entry in sorted(folder.iterdir()):
        name, ending = entry.name.partition(".")[0], entry.name.lower()
        for compression in COMPRESSED:
            ending = ending.removesuffix(compression)
        if not entry.name.startswith(".") and (entry.is_dir() or ending.endswith(_ENDINGS)):
            name = _SHARD.sub("", name)
            if name.startswith(tuple(name for names in _NAMES.values() for name in names)):
                found.setdefault(name, []).append(entry.name)
    return found if "train" in found else None


def _only(path: str, name: str, entries: list[str], key: str) -> str:
    shards = {_SHARD.sub("-*-of-*", entry.partition(".")[0]) + entry[entry.find(".") :] for entry in entries}
    if len(entries) > 1 and (len(shards) > 1 or "*" not in min(shards)):
        raise BertjaxError(f"{path} has several for {name}: {', '.join(entries)}; give {key} one of them")
    return os.path.join(path, shards.pop() if len(entries) > 1 else entries[0])
