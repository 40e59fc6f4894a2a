"""The lock: one holder at a time, and none that is dead."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertjax.errors import BertjaxError
from bertjax.storage.cache import alone_in
from bertjax.storage.lease import FolderPlace, Lease, Lost, leased
from bertjax.storage.locks import locked

HOLD = """
import sys, time
from pathlib import Path
from bertjax.storage.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_holder_is_refused_and_the_dead_hold_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    try:
        with pytest.raises(BertjaxError) as caught, locked(lock):
            raise AssertionError("held twice")
        message = f"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()}; wait for its end"
        assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with locked(lock):
        assert lock.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
        with pytest.raises(BertjaxError, match=f"process {os.getpid()} on"), locked(lock):
            pass
    with locked(lock):
        pass


@pytest.mark.usefixtures("no_locks")
def test_where_there_are_no_locks_a_lease_keeps_others_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    said = "cannot be locked .Operation not supported.: lease.json in it keeps others out"
    with pytest.warns(UserWarning, match=said), locked(lock) as check_held:
        check_held()
        with pytest.raises(BertjaxError, match=f"{tmp_path} is in use by process {os.getpid()} on"), locked(lock):
            pass
        check_held()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    dead = Lease(FolderPlace(tmp_path), "give another")
    dead.acquire()  # and never writes again
    with pytest.warns(UserWarning, match=said), locked(lock) as check_held:
        check_held()
        with pytest.raises(Lost, match=f"{tmp_path} was taken over by process"):
            dead.check()
        (tmp_path / "lease.json").unlink()
        with pytest.raises(Lost, match="was taken over by another process"):
            check_held()


@pytest.mark.usefixtures("no_locks")
def test_a_heart_beats_on_where_another_wrote_at_the_same_moment(tmp_path: Path) -> None:
    beats: list[str] = []

    class Contested(FolderPlace):
        def write(self, content: bytes, name: str = "", *, new: bool = False) -> None:
            beats.append(name)
            if len(beats) in (2, 3):
                raise FileExistsError
            super().write(content, name, new=new)

    with leased(Contested(tmp_path)) as lease:
        deadline = time.monotonic() + 30
        while len(beats) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        lease.check()
    assert len(beats) >= 5


def test_of_two_that_write_a_lease_at_once_one_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, replace = FolderPlace(tmp_path), os.replace

    def take_away(*paths: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        place.write(b"theirs", "a")
        replace(*paths)

    monkeypatch.setattr(os, "replace", take_away)
    with pytest.raises(FileExistsError, match="another writes"):
        place.write(b"ours", "a")
    assert place.read("a") == b"theirs" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_lease_that_cannot_be_kept_is_one_line(tmp_path: Path) -> None:
    place = FolderPlace(tmp_path / "lock")
    (tmp_path / "lock").write_text("no folder")
    for do in (lambda: place.read("a"), lambda: place.write(b"", "a"), lambda: place.remove("a")):
        with pytest.raises(BertjaxError, match=r"cannot (read|write|remove) .*lock/a: Not a directory; see to it"):
            do()


TAKE_TURNS = """
import sys
from pathlib import Path
from bertjax.storage.cache import alone_in
with alone_in(Path(sys.argv[1])) as folder:
    (folder / "shard").write_text("")
    print("held", flush=True)
    sys.stdin.read(1)
    if sys.argv[2] == "removes":
        (folder / "shard").unlink()
        folder.rmdir()
"""


def test_a_folder_is_one_processs_after_the_other(tmp_path: Path) -> None:
    """Though the one before removes it, or is killed."""
    folder, ends = tmp_path / "folder", ["removes", "is killed", "leaves"]
    command = [sys.executable, "-c", TAKE_TURNS, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    waiting = {
        process.stdout: (process, end) for end in ends for process in [subprocess.Popen([*command, end], **pipes)]
    }
    while waiting:
        [holds], _, _ = select.select(waiting, [], [], 60)
        process, end = waiting.pop(holds)
        assert holds.readline() == "held\n"
        assert not select.select(waiting, [], [], 0.3)[0]
        if end == "is killed":
            process.kill()
        process.communicate("x")
    with alone_in(folder):
        pass
    assert list(tmp_path.iterdir()) == [folder]


def test_what_an_older_version_left_in_the_lock_file_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("process 1 on another\n" * 10)
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
