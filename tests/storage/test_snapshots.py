"""A snapshot is what its manifest says, whatever is left of uploads that were cut off; what is damaged is refused."""

import json
from pathlib import Path

import pytest
from faulty_store import FaultyStore
from refusals import refusal

from bertjax.storage.remote import Remote
from bertjax.storage.snapshots import Snapshot, fetch, newest, publish, remove_orphans

Store = type[FaultyStore]


@pytest.fixture
def remote(store: Store) -> Remote:
    return Remote("memory://bucket/run", write=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    for name, content in (("a", "One."), ("b", "One."), ("checkpoints/1", "1")):
        (tmp_path / "run" / name).write_text(content)
    return tmp_path / "run"


def published(remote: Remote, folder: Path, there: Snapshot | None = None, *names: str) -> Snapshot:
    return publish(remote, folder, list(names or ("a", "b", "checkpoints/1")), there, lambda: None)


def test_a_folder_becomes_what_was_published(remote: Remote, folder: Path, store: Store, tmp_path: Path) -> None:
    first, copy = published(remote, folder), tmp_path / "copy"
    assert len(remote.listing()) == 3  # equal files are one
    (copy / "checkpoints/0").mkdir(parents=True), (copy / "old").touch(), (copy / "lock").touch()
    assert fetch(remote, copy, keep=lambda name: name == "lock") == first
    assert sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*")) == [
        *("a", "b", "checkpoints", "checkpoints/1", "lock")
    ]
    store.done.clear()
    fetch(remote, copy)
    assert [path for what, path in store.done if what == "read"] == ["/bucket/run/manifest.json"]


def test_what_a_kill_leaves_is_nobodys(remote: Remote, folder: Path, tmp_path: Path) -> None:
    first = published(remote, folder)
    asked: list[None] = []

    def kill() -> None:
        asked.append(None)
        if len(asked) == 2:  # before the manifest
            raise KeyboardInterrupt

    (folder / "a").write_text("Two.")
    with pytest.raises(KeyboardInterrupt):
        publish(remote, folder, ["a"], first, kill)
    assert newest(remote) == first and len(remote.listing()) == 4
    remote.write(b"", "objects/mine")
    remove_orphans(remote, first)
    assert len(remote.listing()) == 4 and "objects/mine" in remote.listing()
    published(remote, folder, first, "a")
    assert len(remote.listing()) == 3
    fetch(remote, tmp_path / "copy")
    assert {path.name: path.read_text() for path in (tmp_path / "copy").iterdir()} == {"a": "Two."}


def test_what_is_damaged_or_gone_is_named(remote: Remote, folder: Path, tmp_path: Path) -> None:
    (sha, _) = published(remote, folder).files["checkpoints/1"]
    remote.write(b"2", f"objects/{sha}")
    said = f"memory://bucket/run/objects/{sha} holds other bytes than were written; it is damaged"
    assert refusal(fetch, remote, tmp_path / "copy") == said
    remote.remove(f"objects/{sha}")
    said = refusal(fetch, remote, tmp_path / "copy")
    assert (
        said.startswith("memory://bucket/run is damaged: ") and f"nothing at memory://bucket/run/objects/{sha}" in said
    )


@pytest.mark.parametrize(
    "name", ["../b", "/b", "a//b", "a/./b", "", "a/../../b", "\0", "x/" * 16 + "b", ".", "a"], ids=ascii
)
def test_a_name_that_leads_out_of_the_folder_is_refused(remote: Remote, name: str, tmp_path: Path) -> None:
    """Or is another's folder, or deeper than any."""
    remote.write(json.dumps({"files": {name: ["0" * 64, 1], "a/b": ["0" * 64, 1]}}).encode(), "manifest.json")
    assert "which none here can have; rename it" in refusal(fetch, remote, tmp_path / "copy")


@pytest.mark.parametrize(
    "content",
    ["<html>", "[]", '{"files": {"a": ["../../x", 1]}}', '{"files": {"a": [1, 1]}}', "[" * 100_000],
    ids=["html", "list", "path", "number", "deep"],
)
def test_a_manifest_that_is_none_is_refused(remote: Remote, content: str) -> None:
    remote.write(content.encode(), "manifest.json")
    assert refusal(newest, remote) == "memory://bucket/run/manifest.json is not as it was written; give another URL"


def test_no_link_is_followed(remote: Remote, folder: Path, tmp_path: Path) -> None:
    published(remote, folder)
    (tmp_path / "elsewhere").mkdir(), (tmp_path / "copy").mkdir()
    (tmp_path / "copy/checkpoints").symlink_to(tmp_path / "elsewhere")
    assert "is a symbolic link" in refusal(fetch, remote, tmp_path / "copy")
    assert not list((tmp_path / "elsewhere").iterdir())
