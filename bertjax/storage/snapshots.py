"""Snapshots of a folder at a URL: its files by their content, and a manifest, which is written last and names them.

A file is `objects/` and its hash, and so is never written over; what a kill leaves of an upload is nobody's, and a
listing that lags tells nothing wrong, as none is read. A reader takes what the manifest names and checks every byte.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bertjax.errors import BertjaxError
from bertjax.storage.atomic import unfinished
from bertjax.storage.cache import alone_in, cache_folder, cache_key, writing_in
from bertjax.storage.paths import check_no_links
from bertjax.storage.remote import Absent, Remote, check_name

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_OBJECTS = "objects"
_SHA = re.compile("[0-9a-f]{64}")
_OBJECT = re.compile(f"{_OBJECTS}/{_SHA.pattern}")
_DEEPEST = 16  # folders one in another
_TRIES = 5  # readings of a manifest whose files another one's writer removes


class Snapshot(NamedTuple):
    """The files of a folder as they were at one time: their SHA-256 and sizes, by name."""

    files: dict[str, tuple[str, int]]

    def to_json(self) -> bytes:
        """Returns the manifest."""
        return json.dumps({"files": self.files}, sort_keys=True, indent=1).encode()

    @property
    def hashes(self) -> set[str]:
        """The objects that it names."""
        return {sha for sha, _ in self.files.values()}


def newest(remote: Remote) -> Snapshot | None:
    """Returns the snapshot that is at a URL, None where there is none.

    Raises:
      BertjaxError: it cannot be read, is not as it was written, or has names that would lead out of a folder.
    """
    try:
        content = remote.read(MANIFEST)
    except Absent:
        return None
    try:
        files = {name: (sha, size) for name, (sha, size) in json.loads(content)["files"].items()}
        sound = all(_SHA.fullmatch(sha) and type(size) is int and size >= 0 for sha, size in files.values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise BertjaxError(f"{remote.url}/{MANIFEST} is not as it was written; give another URL")
    folders = {str(folder) for name in files for folder in PurePosixPath(name).parents}
    for name in files:
        check_name(remote, f"{name}/" if name in folders or name.count("/") >= _DEEPEST else name)
    return Snapshot(files)


def fetched_snapshot(url: str, *, needed: Callable[[str], bool] = lambda name: True) -> Path | None:
    """Returns the folder here of what was last published at a URL, fetched as it is now; None where nothing was.

    Args:
      needed: tells the files that are fetched, by their names.
    """
    remote = Remote(url)
    if newest(remote) is None:
        return None
    folder = cache_folder() / "remote" / cache_key(url, MANIFEST)
    with writing_in(folder), alone_in(folder):
        fetch(remote, folder / PurePosixPath(remote.url).name, needed=needed)
    return folder / PurePosixPath(remote.url).name


def fetch(
    remote: Remote,
    folder: Path,
    *,
    needed: Callable[[str], bool] = lambda name: True,
    keep: Callable[[str], bool] = lambda name: False,
) -> Snapshot:
    """Makes a folder what the snapshot at a URL is, and returns that; what is there already is not fetched again.

    Args:
      needed: tells the files of the snapshot that are fetched; the others are not to be in the folder.
      keep: tells files of the folder that stay, though they are not in the snapshot.

    Raises:
      BertjaxError: there is none, it cannot be read or is damaged, or the folder has symbolic links.
      OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_no_links(folder, _DEEPEST)
    error: Absent | None = None
    for _ in range(_TRIES):
        if (snapshot := newest(remote)) is None:
            raise Absent(f"there is nothing at {remote.url}; give another URL")
        files = {name: described for name, described in snapshot.files.items() if needed(name)}
        missing = [name for name, described in files.items() if _described(folder / name) != described]
        if missing:
            size = sum(files[name][1] for name in missing)
            logger.info("fetching %s: %s files, %.1f MB", remote.url, f"{len(missing):,}", size / 1e6)
        try:
            remote.each(lambda name: _fetch(remote, folder / name, *files[name]), missing)  # noqa: B023
        except Absent as gone:  # the run goes on, and has just removed its oldest
            error = gone
            continue
        _remove_others(folder, lambda name: name in files or keep(name))  # noqa: B023
        return snapshot
    raise BertjaxError(f"{remote.url} is damaged: {MANIFEST} names what is not there; {error}")


def publish(
    remote: Remote, folder: Path, names: list[str], there: Snapshot | None, check: Callable[[], None]
) -> Snapshot:
    """Uploads files of a folder as the newest snapshot, and returns it.

    Args:
      there: the snapshot before it, whose files that are in this one too stay, and the others go.
      check: raises BertjaxError where nothing may be written any more; it is asked before anything is, and again before
        the manifest.
    """
    known = there.hashes if there else set()
    files: dict[str, tuple[str, int]] = {}

    def upload(name: str) -> None:
        path = folder / name
        if name.startswith("checkpoints/"):  # of which nothing changes
            sha, size = _described(path) or ("", 0)
            if sha not in known:
                remote.upload(path, f"{_OBJECTS}/{sha}")
        else:  # may grow meanwhile
            content = path.read_bytes()
            sha, size = hashlib.sha256(content).hexdigest(), len(content)
            if sha not in known:
                remote.write(content, f"{_OBJECTS}/{sha}")
        files[name] = sha, size

    check()
    remote.each(upload, names)
    snapshot = Snapshot(files)
    if snapshot != there:
        check()
        remote.write(snapshot.to_json(), MANIFEST)
        for sha in known - snapshot.hashes:
            remote.remove(f"{_OBJECTS}/{sha}")
    return snapshot


def remove_orphans(remote: Remote, snapshot: Snapshot | None) -> None:
    """Removes what uploads that were cut off have left, as far as the store lists it."""
    named = snapshot.hashes if snapshot else set()
    for name in remote.listing():
        if _OBJECT.fullmatch(name) and name.removeprefix(f"{_OBJECTS}/") not in named:
            remote.remove(name)


def others_there(remote: Remote, ours: tuple[str, ...]) -> list[str]:
    """Returns the names of files at a URL that are neither objects nor among ours."""
    return [name for name in remote.listing() if name not in ours and not _OBJECT.fullmatch(name)]


def _fetch(remote: Remote, place: Path, sha: str, size: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = unfinished(place)
    partial.unlink(missing_ok=True)  # it may be one of another content
    remote.download(partial, f"{_OBJECTS}/{sha}")
    if _described(partial) != (sha, size):
        partial.unlink()
        raise BertjaxError(f"{remote.url}/{_OBJECTS}/{sha} holds other bytes than were written; it is damaged")
    os.replace(partial, place)


def _described(path: Path) -> tuple[str, int] | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def _remove_others(folder: Path, stays: Callable[[str], bool]) -> None:
    for inside, _, names in os.walk(folder, topdown=False):
        for path in (Path(inside, name) for name in names):
            if not stays(path.relative_to(folder).as_posix()):
                path.unlink()
        if Path(inside) != folder and not os.listdir(inside):  # an empty one would be taken for a checkpoint
            os.rmdir(inside)
