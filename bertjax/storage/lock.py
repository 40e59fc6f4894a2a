"""One process at a time in a run's folder."""

import contextlib
import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

from bertjax.errors import BertjaxError


@contextlib.contextmanager
def locked(path: Path, *, instead: str = "give another folder with --run_dir") -> Iterator[None]:
    """Holds the lock file, which is made where it is not there and stays afterwards, telling its last holder.

    The system takes the lock back when its holder ends, however it ends. On a network file system it holds between
    machines where flock does: on NFS unless mounted with `nolock` or `local_lock`, on Lustre with `-o flock`.

    Args:
      instead: what to do where waiting will not do.

    Raises:
      BertjaxError: another process holds it.
      OSError: the file cannot be written.
    """
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = " ".join(file.read(200).split()) or "another process"  # which has not written its name yet
            raise BertjaxError(
                f"{path.parent} is in use by {holder}; wait for its end, stop it, or {instead}"
            ) from error
        except OSError as error:
            warnings.warn(f"{path.parent} cannot be locked ({error.strerror}): let no other run use it", stacklevel=2)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
