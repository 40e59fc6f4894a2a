"""The cache folder: what is in it was written whole, by whichever process was first, and is read as it was written."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from bertjax.errors import BertjaxError

Found = TypeVar("Found")
_SUMS = "sums.json"


def cache_folder() -> Path:
    """Where downloads go unless data.cache says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification: relative paths are to be ignored
        return Path(base, "bertjax")
    try:
        return Path.home() / ".cache" / "bertjax"
    except RuntimeError as error:
        raise BertjaxError(f"no home folder to keep downloads in ({error}): set data.cache") from None


def cache_key(*parts: object) -> str:
    """A short name for all that decides what a cached file holds."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def writing_in(cache: Path) -> Iterator[None]:
    """Turns a full disk or a missing permission into an error that names the cache and the setting."""
    try:
        yield
    except OSError as error:
        remedy = "free some space there or give another folder as data.cache"
        raise BertjaxError(f"cannot write to {error.filename or cache}: {error.strerror}; {remedy}") from error


@contextlib.contextmanager
def building_in(parent: Path) -> Iterator[Path]:
    """A folder to build in, gone afterwards; what builders that were killed left behind goes too.

    Whoever builds shares a lock on the parent, which the system takes back from the dead. So a process that can have
    the lock for itself knows that nobody builds. Where the file system has no such lock, leftovers stay.
    """
    holder = os.open(parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in parent.glob(".building-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        with contextlib.suppress(OSError):
            fcntl.flock(holder, fcntl.LOCK_SH)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=parent) as unfinished:
            yield Path(unfinished)
    finally:
        os.close(holder)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[Path]:
    """A folder, made if need be, that may be removed; another process that comes waits until it is left.

    Where the file system has no locks nobody waits.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            holder = open(folder / "lock", "a")
        except FileNotFoundError:  # removed in this moment
            continue
        with holder:
            try:
                fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another process builds what is needed in {folder}: waiting for it", flush=True)
                fcntl.flock(holder, fcntl.LOCK_EX)
            except OSError:
                pass
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(holder.fileno()), os.stat(folder / "lock")):
                    yield folder
                    return


def read_whole(folder: Path, read: Callable[[Path], Found | None]) -> Found | None:
    """What `read` finds in a folder that is as it was written."""
    return read(folder) if _is_whole(folder) else None


def read_or_build(folder: Path, read: Callable[[Path], Found | None], build: Callable[[Path], None]) -> Found:
    """What `read` finds in the folder; where that is None or a file has changed, `build` writes the folder first.

    Every file is hashed at every start, at 1 to 2 GB/s: a damaged byte would train on other words, and say nothing.

    Args:
      read: None where something is missing.
      build: writes all of it into the empty folder that it is given; an accident there leaves nothing behind.

    Raises:
      BertjaxError: the folder cannot be written.
    """

    if (found := read_whole(folder, read)) is None:
        with writing_in(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with building_in(folder.parent) as unfinished:
                built = unfinished / "built"
                built.mkdir()
                build(built)
                (built / _SUMS).write_text(json.dumps(_sums(built), indent=2), encoding="utf-8")
                # Another process may have been faster: what it made is the same, so it stays, unless it is damaged.
                if (found := read_whole(folder, read)) is None:
                    shutil.rmtree(folder, ignore_errors=True)
                    try:
                        os.rename(built, folder)
                    except OSError as error:
                        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # made by another in this moment
                            raise
                    found = read_whole(folder, read)
    if found is None:
        raise BertjaxError(f"what is in {folder} cannot be read; remove that folder")
    return found


def _is_whole(folder: Path) -> bool:
    try:
        return json.loads((folder / _SUMS).read_text(encoding="utf-8")) == _sums(folder)
    except (OSError, ValueError, RecursionError):
        return False


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file. Folders are what was derived later, with sums of their own."""
    sums = {}
    for path in sorted(folder.iterdir()):
        if path.name != _SUMS and not path.is_dir():
            with open(path, "rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
