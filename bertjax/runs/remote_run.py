"""A run at a URL: it is made in a folder here, and published there after every checkpoint and at its end."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from bertjax.config import Config
from bertjax.errors import BertjaxError
from bertjax.parallel.process_group import Processes
from bertjax.storage.atomic import atomic_write
from bertjax.storage.cache import cache_folder, cache_key, writing_in
from bertjax.storage.hub_models import model_folder
from bertjax.storage.lease import LEASE, Lease, Lost, leased
from bertjax.storage.paths import url_of, user_path
from bertjax.storage.remote import Remote
from bertjax.storage.snapshots import MANIFEST, Snapshot, fetch, newest, others_there, publish, remove_orphans

_CONFIG = "config.yaml"  # is there by its name too, to --resume by
_STAY_HERE = ("lock", LEASE, "checkpoints/partial-", "checkpoints/damaged-")  # beginnings of names


def run_path(config: Config) -> Path:
    """Returns a run's folder here: its own, or where one at a URL is made."""
    if (url := url_of(config.run_dir)) is None:
        return user_path(config.run_dir)
    url = url.rstrip("/")
    return Path(config.data.cache or cache_folder(), "runs", cache_key(url), PurePosixPath(url).name)


def fetched_run(name: str | os.PathLike[str]) -> Path:
    """Returns the folder here of a run that is there: its own, or for one at a URL what was last published, fetched.

    Raises:
      BertjaxError: there is nothing at the URL, or it cannot be fetched.
    """
    return Path(name) if url_of(name) is None else model_folder(name)


@contextlib.contextmanager
def at_url(config: Config, processes: Processes, *, resume: bool) -> Iterator[Callable[[], None]]:
    """Makes a run's folder here what is at its URL, keeps others from that, and publishes it there at the end.

    A run whose `run_dir` is a path has nothing to publish, nor have processes other than the first.

    Yields:
      what publishes the folder as it is, and raises BertjaxError where that fails: `Lost` where another has the run.

    Raises:
      BertjaxError: the URL cannot be read or written, something is there already, or it is in use; or the processes do
        not share a folder to make it in.
    """
    if (url := url_of(config.run_dir)) is None or not processes.first:
        if url is not None:
            processes.broadcast(lambda: None)
            _check_shared(run_path(config), processes)
        yield lambda: None
        return
    remote = Remote(url, write=True)
    _check_free(remote, resume=resume)  # at once, and not after the wait for a lease
    with leased(remote) as lease:
        run = _Published(remote, run_path(config), lease)
        with writing_in(run.folder):
            run.begin(resume=resume)
        processes.broadcast(lambda: None)  # the folder is as it is at its URL
        try:
            yield run.publish
        except Exception:
            with contextlib.suppress(BertjaxError):  # the other one tells more
                run.publish()
            raise
        run.publish()


class _Published:
    """A folder here and its snapshot at a URL.

    Beside the folder is the snapshot that it was last the same as: where the URL still has that one, what is here goes
    on from it, and may be newer; else another machine went on, and has the run.
    """

    def __init__(self, remote: Remote, folder: Path, lease: Lease):
        self.folder, self._remote, self._lease = folder, remote, lease
        self._known_file = folder.parent / "published.json"
        self._there: Snapshot | None = None
        self._config = b""  # as it was last written there

    def begin(self, *, resume: bool) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._there = _check_free(self._remote, resume=resume)
        if self._there is not None and not self._is_known(self._there):
            self._there = fetch(self._remote, self.folder, keep=lambda name: name == "lock")
            self._remember(self._there)
        remove_orphans(self._remote, self._there)

    def publish(self) -> None:
        names = [name for name in _names(self.folder) if not name.startswith(_STAY_HERE)]
        if _CONFIG not in names:  # it has not begun
            return
        try:
            before = self._there
            self._there = publish(self._remote, self.folder, names, before, self._check)
            if self._there != before:
                self._remember(self._there)
        except Lost:
            raise
        except (BertjaxError, OSError) as error:
            raise BertjaxError(
                f"{self.folder} is not published: {error}; what was published before is whole, and --resume on this "
                "machine publishes what is here"
            ) from error

    def _check(self) -> None:
        self._lease.check()
        if (content := (self.folder / _CONFIG).read_bytes()) != self._config:
            self._remote.write(content, _CONFIG)
            self._config = content

    def _is_known(self, snapshot: Snapshot) -> bool:
        try:
            return self._known_file.read_bytes() == snapshot.to_json()
        except FileNotFoundError:
            return False

    def _remember(self, snapshot: Snapshot) -> None:
        with atomic_write(self._known_file, binary=True) as file:
            file.write(snapshot.to_json())


def _check_shared(folder: Path, processes: Processes) -> None:
    if not folder.parent.is_dir():
        raise BertjaxError(
            f"process {processes.index} does not find {folder.parent}, where process 0 makes what is published; "
            "give a data.cache on a file system that all processes share"
        )


def _check_free(remote: Remote, *, resume: bool) -> Snapshot | None:
    """Returns what was published there. Raises BertjaxError where something is that must stay."""
    there = newest(remote)
    if there is not None and not resume:
        go_on = "go on with that run by --resume, or give this one another place with --run_dir"
        raise BertjaxError(f"{remote.url} exists and is left as it is; {go_on}")
    if there is None and (others := others_there(remote, (MANIFEST, _CONFIG, LEASE))):
        raise BertjaxError(
            f"{remote.url} holds {others[0]}, is no run to --resume and is left as it is; give another place with "
            "--run_dir"
        )
    return there


def _names(folder: Path) -> list[str]:
    """Returns the names of a folder's files, but for those that are not written to their end."""
    found = [Path(inside, name) for inside, _, names in os.walk(folder) for name in names]
    return sorted(path.relative_to(folder).as_posix() for path in found if not path.name.endswith(".unfinished"))
