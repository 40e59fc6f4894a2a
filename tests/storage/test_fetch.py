"""What is at URLs is fetched into the cache folder: whole, as it is there now, and once."""

import errno
from pathlib import Path
from typing import Any

import fsspec
import pytest
from faulty_store import FaultyStore, times
from refusals import refusal

from bertjax.storage import remote
from bertjax.storage.cache import cache_folder
from bertjax.storage.fetch import fetched, here
from bertjax.storage.remote import Remote, check_url

Store = type[FaultyStore]


def put(files: dict[str, bytes]) -> None:
    for name, content in files.items():
        fsspec.filesystem("memory").pipe_file(name, content)


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def reads(store: Store) -> list[str]:
    return [path for what, path in store.done if what == "read"]


def test_a_file_a_folder_and_a_pattern(store: Store, tmp_path: Path) -> None:
    put({"/texts/a.txt": b"One.", "/texts/in/b.txt": b"", "/texts/in/c.csv": b"x", "/texts/in/": b""})
    assert (file := fetched("memory://texts/a.txt")).read_bytes() == b"One." and file.name == "a.txt"
    everything = {"a.txt": b"One.", "in/b.txt": b"", "in/c.csv": b"x"}
    assert read(folder := fetched("memory://texts")) == everything and folder.name == "texts"
    assert read(fetched("memory://texts/**/*.txt")) == {"a.txt": b"One.", "in/b.txt": b""}
    assert read(fetched("memory://texts", keep=lambda name: name.endswith("csv"))) == {"in/c.csv": b"x"}
    assert fetched(Path("memory://texts/a.txt"), tmp_path).is_relative_to(tmp_path / "remote")
    assert here(f"{file}:b.txt:memory://texts/a.txt") == f"{file}:b.txt:{file}"
    assert fetched("~/a") == Path.home() / "a"


def test_what_has_changed_is_fetched_again_and_only_that(store: Store) -> None:
    put({"/texts/a.txt": b"One.", "/texts/b.txt": b"Two.", "/texts/c.txt": b"Gone."})
    folder = fetched("memory://texts")
    before = (folder / "a.txt").stat()
    store.done.clear()
    assert fetched("memory://texts") == folder and not reads(store)
    put({"/texts/b.txt": b"Too."})  # as long as it was
    fsspec.filesystem("memory").rm("/texts/c.txt")
    assert read(fetched("memory://texts")) == {"a.txt": b"One.", "b.txt": b"Too."} and reads(store) == ["/texts/b.txt"]
    assert (folder / "a.txt").stat().st_ino == before.st_ino
    assert (folder / "b.txt").stat().st_mtime != before.st_mtime
    # A file that is fetched elsewhere has the same time: it tells a corpus whether it is still of the same text.
    (folder / "a.txt").unlink()
    assert (fetched("memory://texts") / "a.txt").stat().st_mtime == before.st_mtime


@pytest.mark.parametrize(
    "error", [ConnectionResetError("reset"), TimeoutError(), OSError(errno.EBUSY, "503 Slow Down"), None], ids=str
)
def test_a_connection_that_fails_is_tried_again(
    store: Store, error: Exception | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if error is None:  # as aiohttp and gcsfs have it
        error = type("ClientResponseError", (Exception,), {"status": 503})("Service Unavailable")
    monkeypatch.setattr(remote, "_BLOCK", 3)
    put({"/a.txt": b"0123456789"})
    store.faults.extend((times(2, error, "read"), times(1, error, "info")))
    assert fetched("memory://a.txt").read_bytes() == b"0123456789"
    assert capsys.readouterr().err.count("trying again") == 3
    assert len(reads(store)) == 6  # of which four give three bytes each


def test_what_is_fetched_goes_on_where_it_was_cut_off(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BLOCK", 3)
    put({"/a.txt": b"0123456789"})
    fetched_so_far = 0

    def cut(operation: str, path: str) -> Exception | None:
        nonlocal fetched_so_far
        fetched_so_far += operation == "read"
        return ConnectionError("gone") if fetched_so_far > 2 else None

    store.faults.append(cut)
    assert "cannot read memory://a.txt (ConnectionError: gone)" in refusal(fetched, "memory://a.txt")
    there = [path for path in (cache_folder() / "remote").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in there] == [b"012345"] and there[0].name.endswith(".unfinished")
    store.faults.clear(), store.done.clear()
    assert fetched("memory://a.txt").read_bytes() == b"0123456789" and len(reads(store)) == 2
    # Of another version nothing is kept.
    store.faults.append(cut)
    fetched_so_far = 0
    put({"/a.txt": b"abcdefghij"})
    refusal(fetched, "memory://a.txt")
    store.faults.clear()
    put({"/a.txt": b"ABCDEFGHIJ"})
    assert read(fetched("memory://a.txt").parent) == {"a.txt": b"ABCDEFGHIJ"}


def test_a_file_that_changes_meanwhile(store: Store) -> None:
    put({"/a.txt": b"One."})

    def change(operation: str, path: str) -> None:
        if operation == "read":
            put({"/a.txt": b"Two."})

    store.faults.append(change)
    assert "memory://a.txt changed while it was fetched" in refusal(fetched, "memory://a.txt")
    store.faults.clear()
    assert fetched("memory://a.txt").read_bytes() == b"Two."


def test_what_cannot_be_fetched(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put({"/no/a.txt": b"One.", "/odd/a.txt": b""})
    store.faults.append(times(9, PermissionError("Forbidden"), "read", "/no/"))
    assert refusal(fetched, "memory://b.txt").startswith("there is nothing at memory://b.txt")
    assert refusal(fetched, "memory://b/*.txt").startswith("there are no files at memory://b/*.txt")
    assert "cannot read memory://no/a.txt (PermissionError: Forbidden)" in refusal(fetched, "memory://no/a.txt")
    assert reads(store) == ["/no/a.txt"]  # once: it would be refused again
    odd: dict[str, Any] = {"/odd/../a.txt": {"type": "file", "size": 0}}
    monkeypatch.setattr(FaultyStore, "find", lambda *_, **__: odd)
    assert "has a file of the name '../a.txt', which none here can have" in refusal(fetched, "memory://odd")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://a/b", "ftp://a/b is of no protocol that is read here; give one of s3,"),
        ("simplecache::s3://a/b", "is of no protocol that is read here"),
        ("https://me:secret@a.org/b", "a URL of https has a password in it, which every message would show"),
        ("https://a.org/b?signature=secret", "https://a.org/b can be read alone; give a path, or a URL such as s3://"),
    ],
)
def test_urls_that_are_refused(url: str, why: str) -> None:
    said = refusal(check_url, url, write=True)
    assert why in said and "=secret" not in said and ":secret" not in said


def test_small_files_are_written_and_removed(store: Store) -> None:
    place = Remote("memory://place", write=True)
    assert not place.exists()
    place.write(b"One.", "in/a")
    with pytest.raises(FileExistsError):
        place.write(b"Two.", "in/a", new=True)
    assert place.exists() and place.read("in/a") == b"One." and list(place.listing()) == ["in/a"]
    place.remove("in/a"), place.remove("in/a")
    assert not place.listing()
