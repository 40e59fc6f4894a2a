"""Locks between processes, which the system takes back from a holder that is killed."""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bertjax.errors import BertjaxError, warn
from bertjax.storage.lease import LEASE, FolderPlace, leased
from bertjax.storage.paths import NO_LINK

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: Path, *, instead: str = "give another folder with --run_dir") -> Iterator[Callable[[], None]]:
    """Holds a lock file, which is made where it is missing, and stays afterwards, naming its last holder.

    On a network file system it holds between machines where flock does: on NFS unless mounted with `nolock` or
    `local_lock`, on Lustre with `-o flock`. Where there are no locks a lease beside the lock file takes their place.

    Args:
      path: the lock file; the message of the error names its folder.
      instead: what to do where waiting will not do.

    Yields:
      what raises Lost where another holds it now, as it may where there are no locks.

    Raises:
      BertjaxError: another process holds it.
      OSError: the file cannot be written, or is a symbolic link.
    """
    os.close(_opened(path))  # what cannot be written is told apart from what cannot be locked
    lock = _lock(path)
    with contextlib.ExitStack() as stack:
        check_held: Callable[[], None] = _always
        try:
            lock.acquire(blocking=False)
            stack.callback(lock.release)
        except Timeout as error:
            with open(path, encoding="utf-8", errors="replace") as file:
                holder = " ".join(file.read(200).split()) or "another process"  # which has not written its name yet
            raise BertjaxError(
                f"{path.parent} is in use by {holder}; wait for its end, stop it, or {instead}"
            ) from error
        except OSError as error:
            warn(f"{path.parent} cannot be locked ({error.strerror}): {LEASE} in it keeps others out", stacklevel=2)
            check_held = stack.enter_context(leased(FolderPlace(path.parent), instead=instead)).check
        with open(_opened(path, os.O_TRUNC), "w", encoding="utf-8") as file:
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield check_held


def _always() -> None:
    """A lock is held until it is released."""


@contextlib.contextmanager
def locked_beside(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds FOLDER.lock, which is removed afterwards: whoever waits for it notices, and makes it anew.

    Args:
      folder: need not exist, and may be made and removed meanwhile.
      wait: for another holder, which is logged if it takes longer than a moment.

    Yields:
      whether the lock is held: not by another, on a file system that has locks.
    """
    lock = _lock(folder.with_name(f"{folder.name}.lock"))
    held = _acquire(lock, folder, wait)
    try:
        yield held
    finally:
        if held:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def _acquire(lock: FileLock, folder: Path, wait: bool) -> bool:
    try:
        lock.acquire(timeout=0.5 if wait else 0)
    except Timeout:
        if not wait:
            return False
        logger.info("another process builds what is needed in %s: waiting for it", folder)
        lock.acquire()
    except OSError:
        return False
    return True


def _opened(path: Path, flags: int = 0) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | NO_LINK | flags, 0o666)


def _lock(path: Path) -> FileLock:
    return FileLock(path, fallback_to_soft=False)  # a soft lock would outlive a holder that is killed
