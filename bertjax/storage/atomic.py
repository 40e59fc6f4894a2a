"""Files and folders that are written whole or not at all, whenever the process is killed."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def unfinished(path: Path) -> Path:
    """The name beside `path` under which it is written; a kill may leave it there, and the next write removes it."""
    return path.with_name(f".{path.name}.unfinished")


@contextlib.contextmanager
def atomic_write(path: Path, *, binary: bool = False, replace: bool = True) -> Iterator[IO[Any]]:
    """Opens a file that takes the place of `path` at the end, forced to the disk; an error leaves `path` as it was.

    Two processes must not write the same path at once: hold a lock, or write in a folder of `building_in`.

    Args:
      binary: bytes are written, not UTF-8 text.
      replace: a file that exists is replaced.

    Raises:
      OSError: it cannot be written; FileExistsError where something is there and is not to be replaced.
    """
    temporary = unfinished(path)
    if not replace:
        _check_free(path)
    temporary.unlink(missing_ok=True)
    try:
        with open(temporary, "xb" if binary else "x", encoding=None if binary else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not replace:
            _check_free(path)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Makes an empty folder to write in, which becomes `path` at the end, forced to the disk; an error leaves nothing.

    Raises:
      OSError: it cannot be written; FileExistsError where something is there, before and at the end.
    """
    temporary = unfinished(path)
    _check_free(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                _sync(Path(folder, name))
            sync_folder(Path(folder))
        _check_free(path)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sync_folder(folder: Path) -> None:
    """Forces the names in a folder to the disk."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
