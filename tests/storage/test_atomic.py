"""A file or folder is there whole, or as it was."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bertjax.storage.atomic import atomic_folder, atomic_write, unfinished

KILLED = """
import os, signal, sys
from pathlib import Path
from bertjax.storage.atomic import atomic_folder, atomic_write
path, moment = Path(sys.argv[1]), sys.argv[2]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if moment != "writing":
    setattr(os, moment, die)
if path.suffix:
    with atomic_write(path) as file:
        file.write("new" * 100_000)
        moment == "writing" and die()
else:
    with atomic_folder(path) as folder:
        (folder / "a").write_text("new")
        moment == "writing" and die()
"""


def kill(path: Path, moment: str) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(path), moment]).returncode == -signal.SIGKILL


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write("nämé\n")
        assert path.read_text() == "old"
    assert path.read_text(encoding="utf-8") == "nämé\n"
    with atomic_write(path, binary=True) as file:
        file.write(b"\xff")
    assert path.read_bytes() == b"\xff"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["writing", "fsync", "replace"])
def test_a_kill_leaves_the_old_file(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    kill(path, moment)
    assert path.read_text() == "old"
    assert set(tmp_path.iterdir()) == {path, unfinished(path)}
    with atomic_write(path) as file:
        file.write("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["writing", "fsync", "rename"])
def test_a_kill_leaves_no_folder(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "folder"
    kill(path, moment)
    assert list(tmp_path.iterdir()) == [unfinished(path)]
    with atomic_folder(path) as folder:
        assert not list(folder.iterdir())
        (folder / "below").mkdir()
        (folder / "below" / "b").write_text("new")
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]
    assert (path / "below" / "b").read_text() == "new"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_write(path) as file:
        file.write("new")
        raise error
    with pytest.raises(type(error)), atomic_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text("new")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_exists_is_left_as_it_is(tmp_path: Path) -> None:
    """Empty folders and links to nowhere too; and what another process has made meanwhile."""
    file, empty, link = tmp_path / "a.txt", tmp_path / "empty", tmp_path / "link"
    file.write_text("old")
    empty.mkdir()
    link.symlink_to("nowhere")
    for path in (file, empty, link):
        with pytest.raises(FileExistsError, match=path.name), atomic_folder(path):
            raise AssertionError("it has begun")
        with pytest.raises(FileExistsError, match=path.name), atomic_write(path, replace=False):
            raise AssertionError("it has begun")
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "new"):
        (tmp_path / "new").mkdir()
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "b.txt", replace=False) as other:
        other.write("new")
        (tmp_path / "b.txt").write_text("old")
    assert (tmp_path / "b.txt").read_text() == file.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "b.txt", "empty", "link", "new"}


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a.txt"), atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
