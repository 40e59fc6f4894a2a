"""A lease: a small file that its holder writes again and again, which keeps others out where there are no locks.

The clocks of machines differ, so a lease is not judged by its time but watched: one that stays as it is for a minute is
nobody's. It keeps out whoever comes while the holder works, as well as can be told: a holder that is suspended for
longer than that loses it, and finds out before it writes anything that counts.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from bertjax.errors import BertjaxError
from bertjax.storage.atomic import atomic_write
from bertjax.storage.remote import Absent

logger = logging.getLogger(__name__)

BEAT, PATIENCE, SETTLE = 10.0, 60.0, 2.0  # seconds between writes; of silence; until two that write at once agree
LEASE = "lease.json"  # in the place


class Place(Protocol):
    """Where a lease is, such as a `Remote`."""

    url: str

    def read(self, name: str = "") -> bytes:
        """Returns a file. Raises Absent where it is not there."""

    def write(self, content: bytes, name: str = "", *, new: bool = False) -> None:
        """Writes a file. Raises FileExistsError where it is to be new and is not."""

    def remove(self, name: str) -> None:
        """Removes a file."""


class FolderPlace:
    """A folder at a path, on a file system that has no locks."""

    def __init__(self, folder: Path):
        self.url, self._folder = str(folder), folder

    def read(self, name: str = "") -> bytes:
        """Returns a file. Raises Absent where it is not there."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise Absent(f"there is no {self._folder / name}; give another folder") from None
        except OSError as error:
            raise self._cannot("read", name, error) from error

    def write(self, content: bytes, name: str = "", *, new: bool = False) -> None:
        """Writes a file. Raises FileExistsError where it is to be new and is not, or another writes it too."""
        try:
            with atomic_write(self._folder / name, binary=True, replace=not new) as file:
                file.write(content)
        except OSError as error:
            # Both have the same unfinished file, which the one that comes first takes away.
            if isinstance(error, FileExistsError | FileNotFoundError) and self._folder.is_dir():
                raise FileExistsError(f"another writes {self._folder / name}") from error
            raise self._cannot("write", name, error) from error

    def remove(self, name: str) -> None:
        """Removes a file."""
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot("remove", name, error) from error

    def _cannot(self, do: str, name: str, error: OSError) -> BertjaxError:
        return BertjaxError(f"cannot {do} {self._folder / name}: {error.strerror}; see to it and try again")


class Lost(BertjaxError):
    """A lease has gone to another holder."""


class Lease:
    """A lease that is held. `check` before whatever only its holder may do."""

    def __init__(self, place: Place, instead: str):
        self._place, self._instead = place, instead
        self._token, self._number = secrets.token_hex(8), 0
        self._ended = threading.Event()

    def check(self) -> None:
        """Raises Lost where another has taken it over, or it was removed."""
        if not self._is_ours(there := self._read()):
            raise Lost(
                f"{self._place.url} was taken over by {_holder(there)}, and nothing more is written there; see to it "
                f"that one alone goes on, or {self._instead}"
            )

    def acquire(self) -> None:
        """Takes it, from one that is silent too. Raises BertjaxError where it is another's."""
        if (there := self._read()) is not None:
            self._watch(there)
        try:
            self._write(new=there is None)
        except FileExistsError:
            raise self._held(self._read()) from None
        time.sleep(SETTLE)  # another may have waited for its end too, and not every store heeds `new`
        if not self._is_ours(there := self._read()):
            raise self._held(there)

    def beat(self) -> None:
        """Writes it again and again, until it is released or lost."""
        while not self._ended.wait(BEAT):
            # What failed is tried again; so is what another wrote at the same moment.
            with contextlib.suppress(BertjaxError, FileExistsError):
                if not self._is_ours(there := self._read()):
                    if not self._ended.is_set():
                        logger.warning(
                            "%s was taken over by %s: the run ends at its next checkpoint",
                            self._place.url,
                            _holder(there),
                        )
                    return
                self._write()

    def stop(self) -> None:
        """Ends the heartbeat, after what it writes now."""
        self._ended.set()

    def release(self) -> None:
        """Gives it back. No heart may beat any more, which would write it again."""
        with contextlib.suppress(BertjaxError):
            if self._is_ours(self._read()):
                self._place.remove(LEASE)

    def _watch(self, there: bytes) -> None:
        """Returns when nobody has written for long, or the lease is gone; raises BertjaxError when somebody writes."""
        logger.info(
            "%s is leased by %s: waiting %.0f s to see whether it lives", self._place.url, _holder(there), PATIENCE
        )
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(BEAT / 4)
            now = self._read()
            if now is None:
                return
            if now != there:
                raise self._held(now)
        logger.warning("%s: the lease of %s is taken over, which was silent", self._place.url, _holder(there))

    def _held(self, there: bytes | None) -> BertjaxError:
        return BertjaxError(
            f"{self._place.url} is in use by {_holder(there)}; wait for its end, stop it, or {self._instead}"
        )

    def _read(self) -> bytes | None:
        try:
            return self._place.read(LEASE)
        except Absent:
            return None

    def _write(self, *, new: bool = False) -> None:
        self._number += 1
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        told = {"holder": holder, "token": self._token, "number": self._number}
        self._place.write(json.dumps(told).encode(), LEASE, new=new)

    def _is_ours(self, there: bytes | None) -> bool:
        return there is not None and self._token.encode() in there


@contextlib.contextmanager
def leased(place: Place, *, instead: str = "give another folder with --run_dir") -> Iterator[Lease]:
    """Holds the lease of a place.

    Args:
      instead: what to do where waiting will not do.

    Raises:
      BertjaxError: another holds it.
    """
    lease = Lease(place, instead)
    lease.acquire()
    heart = threading.Thread(target=lease.beat, name="lease", daemon=True)
    heart.start()
    try:
        yield lease
    finally:
        lease.stop()
        heart.join()
        lease.release()


def _holder(there: bytes | None) -> str:
    try:
        return str(json.loads(there or b"")["holder"])
    except (ValueError, KeyError, TypeError):
        return "another process"
