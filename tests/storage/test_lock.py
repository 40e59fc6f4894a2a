"""The lock: one holder at a time, and none that is dead."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bertjax.errors import BertjaxError
from bertjax.storage.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from bertjax.storage.lock import locked
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


def test_a_file_system_without_locks_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.warns(UserWarning, match="cannot be locked .Operation not supported.: let no other run"):
        with locked(tmp_path / "lock"):
            pass
