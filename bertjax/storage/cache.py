"""The cache folder, whose content is written whole, by whichever process is first, and read as it was written."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from bertjax.errors import BertjaxError
from bertjax.storage.locks import locked_beside

Found = TypeVar("Found")
_SUMS = "sums.json"
_BUILDING = ".building-"


def cache_folder() -> Path:
    """Returns the folder of downloads and of what is derived from them, unless data.cache says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification: relative paths are to be ignored
        return Path(base, "bertjax")
    try:
        return Path.home() / ".cache" / "bertjax"
    except RuntimeError as error:
        raise BertjaxError(f"no home folder to keep downloads in ({error}): set data.cache") from None


def cache_key(*parts: object) -> str:
    """Returns a short name for all that decides what a cached file holds: numbers, strings, booleans, None."""
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
    """Makes a folder to build in, which is removed afterwards, as is what builders that were killed left behind.

    Each builder holds a lock beside its folder, so a folder whose lock is free is nobody's. On a file system without
    locks such folders stay.
    """
    for path in parent.glob(f"{_BUILDING}*"):
        leftover = path.with_name(path.name.removesuffix(".lock"))
        with locked_beside(leftover, wait=False) as is_nobodys:
            if is_nobodys:
                shutil.rmtree(leftover, ignore_errors=True)
    folder = parent / f"{_BUILDING}{secrets.token_hex(8)}"
    with locked_beside(folder):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[Path]:
    """Makes the folder if need be; it may be removed meanwhile, and another process that comes waits until it is left.

    On a file system without locks nobody waits.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked_beside(folder):
        folder.mkdir(exist_ok=True)
        yield folder


def read_whole(folder: Path, read: Callable[[Path], Found | None]) -> Found | None:
    """Returns what `read` finds in a folder that is as it was written, else None."""
    return read(folder) if _is_whole(folder) else None


def read_or_build(folder: Path, read: Callable[[Path], Found | None], build: Callable[[Path], None]) -> Found:
    """Returns what `read` finds in the folder, which is built first where that is None or a file has changed.

    Every file is hashed at every start, at 1 to 2 GB/s: a damaged byte would train on other words, and say nothing.

    Args:
      folder: where it is in the cache.
      read: returns None where something is missing.
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
    """Tells whether a folder's files are as they were written."""
    try:
        return json.loads((folder / _SUMS).read_text(encoding="utf-8")) == _sums(folder)
    except (OSError, ValueError, RecursionError):
        return False


def _sums(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file. Folders are what was derived later, with sums of their own."""
    sums = {}
    for path in sorted(folder.iterdir()):
        if path.name != _SUMS and not path.is_dir():
            with open(path, "rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
