"""Outputs at URLs: made whole here, then there at once, or not at all."""

from pathlib import Path

import fsspec
import pytest
from faulty_store import FaultyStore, times
from refusals import refusal

from bertjax.storage.cache import cache_folder
from bertjax.storage.outputs import delivered, output

Store = type[FaultyStore]
URL = "memory://bucket/a.npy"


def make(url: str, content: str) -> None:
    with delivered("--out", output(url)) as path:
        path.write_text(content)


def left() -> list[Path]:
    return [path for path in (cache_folder() / "outbox").rglob("*") if path.is_file()]


def test_a_file_is_made_here_and_uploaded(store: Store, tmp_path: Path) -> None:
    make(URL, "One.")
    assert fsspec.filesystem("memory").cat("/bucket/a.npy") == b"One." and not left()
    assert refusal(make, URL, "Two.") == f"--out {URL} exists and is left as it is; give another name"
    assert [what for what, _ in store.done].count("write") == 1
    make(str(tmp_path / "b"), "Two.")
    assert (tmp_path / "b").read_text() == "Two." and not left()
    assert "can be read alone" in refusal(make, "https://a.org/b", "")
    with delivered("--out", None) as path:
        assert path is None


def test_a_busy_store_is_asked_again(store: Store) -> None:
    store.faults.append(times(3, OSError("503 Slow Down"), "write"))
    make(URL, "One.")
    assert fsspec.filesystem("memory").cat("/bucket/a.npy") == b"One."


def test_what_cannot_be_uploaded_stays_here(store: Store) -> None:
    store.faults.append(times(99, ConnectionError("gone"), "write"))
    said = refusal(make, URL, "One.")
    (file,) = left()
    assert said.startswith(f"--out is made and is {file}, but not uploaded: cannot write {URL} (ConnectionError: gone)")
    store.faults.clear()
    assert f"it is {file}; upload that, or remove it" in refusal(make, URL, "Two.") and file.read_text() == "One."
    file.unlink()
    make(URL, "Two.")


def test_what_an_error_ends_is_not_uploaded(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), delivered("--out", output(URL)) as path:
        path.with_suffix(".partial").write_text("half")
        raise KeyboardInterrupt
    assert not [name for what, name in store.done if what == "write"] and [path.name for path in left()] == [
        "a.partial"
    ]


def test_a_folder_that_is_cut_off_is_no_model(store: Store) -> None:
    """Its config.json goes last, without which nobody takes it for one."""
    store.faults.append(times(99, ConnectionError("gone"), "write", "z.txt"))

    def export() -> None:
        with delivered("OUT", output("memory://bucket/model")) as folder:
            (folder / "in").mkdir(parents=True)
            for name in ("config.json", "in/a.txt", "z.txt"):
                (folder / name).write_text(name)

    refusal(export)
    assert not fsspec.filesystem("memory").exists("/bucket/model/config.json")
    assert fsspec.filesystem("memory").cat("/bucket/model/in/a.txt") == b"in/a.txt" and len(left()) == 3
