"""What is at a URL, fetched into the cache folder: there it is read as any file, and fetched again when it changes.

A file that is fetched has a time of change that is made of its version there. So it tells whether it is still the same,
whoever fetched it, and a corpus that was built from it stays good while it is.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from bertjax.errors import BertjaxError
from bertjax.storage.cache import alone_in, cache_folder, cache_key, writing_in
from bertjax.storage.paths import url_of, user_path
from bertjax.storage.remote import Absent, Info, Remote, check_name, check_url, shown_url

logger = logging.getLogger(__name__)

# A URL among paths apart by `:`, which stands in it after the protocol and before a port.
_AMONG_PATHS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/:]*(?::\d+(?=/))?[^:]*")
_PATTERN = re.compile(r"([^*?[]+)/([^/]*[*?[].*)")


def here(path: str, cache: str | Path | None = None) -> str:
    """Returns a path, or several apart by `:`, in which what is at URLs is fetched, and has its place here instead.

    Args:
      cache: folder to fetch into; by default the user's cache.

    Raises:
      BertjaxError: one cannot be read; all are looked at before any is fetched.
    """
    for found in _AMONG_PATHS.findall(path):
        if (url := url_of(found)) is not None:
            check_url(url)
    return _AMONG_PATHS.sub(lambda found: str(fetched(found[0], cache)), path)


def fetched(
    name: str | os.PathLike[str], cache: str | Path | None = None, *, keep: Callable[[str], bool] = lambda name: True
) -> Path:
    """Returns where the file or folder at a URL is now, or the folder of what matches a pattern; a path as it is.

    Args:
      cache: folder to fetch into; by default the user's cache.
      keep: tells the files of a folder that are needed, by their names in it.

    Raises:
      BertjaxError: it is not there, cannot be read, or changes meanwhile; or there is no room for it.
    """
    if (url := url_of(name)) is None:
        return user_path(name)
    remote, top, files = _found(url, keep)
    folder = Path(cache or cache_folder(), "remote", cache_key(url))
    places = {name: folder / top / name if name else folder / top for name in files}
    with writing_in(folder), alone_in(folder):
        missing = {name: info for name, info in files.items() if not _is_there(places[name], info)}
        _remove_others(folder, {*places.values()} | {_partial(places[name], missing[name]) for name in missing})
        if missing:
            size = sum(info.size or 0 for info in missing.values())
            logger.info("fetching %s: %s files, %.1f MB", shown_url(url), f"{len(missing):,}", size / 1e6)
        remote.each(lambda name: _fetch(remote, name, missing[name], places[name]), missing)
    return folder / top


def _found(url: str, keep: Callable[[str], bool]) -> tuple[Remote, str, dict[str, Info]]:
    """Returns where a URL leads, what it is to be called here, and the files there; a single one has no name."""
    remote, pattern = Remote(url), ""
    try:
        info = remote.info()
        if info.is_file:
            return remote, PurePosixPath(shown_url(remote.url)).name, {"": info}
    except Absent:
        if (wild := _PATTERN.fullmatch(remote.url)) is None:
            raise
        remote, pattern = Remote(wild[1]), wild[2]
    found = {name: info for name, info in remote.listing(pattern).items() if keep(name)}
    if not found:
        raise Absent(f"there are no files at {shown_url(url)}; give another URL")
    folders = {str(folder) for one in found for folder in PurePosixPath(one).parents}
    found = {name: info for name, info in found.items() if name not in folders or info.size}  # markers of folders
    for one in found:
        check_name(remote, f"{one}/" if one in folders else one)
    return remote, PurePosixPath(remote.url).name, found


def _fetch(remote: Remote, name: str, info: Info, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(place, info)
    if info.version is None:  # what is there of it may be of another
        partial.unlink(missing_ok=True)
    remote.download(partial, name, info=info)
    if (now := remote.info(name).version) != info.version:
        partial.unlink()
        raise BertjaxError(f"{shown_url(remote.url)} changed while it was fetched ({info.version}, {now}); try again")
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    if (time := _time_of(info)) is not None:
        os.utime(partial, (time, time))
    os.replace(partial, place)


def _time_of(info: Info) -> int | None:
    """Returns the time of change, in seconds, of a file of this version; None where that is unknown."""
    if info.version is None:
        return None
    return int.from_bytes(hashlib.sha256(info.version.encode()).digest()[:4]) >> 1


def _is_there(place: Path, info: Info) -> bool:
    if not place.is_file():
        return False
    there = place.stat()
    return (there.st_size, int(there.st_mtime)) == (info.size, _time_of(info))


def _partial(place: Path, info: Info) -> Path:
    return place.with_name(f".{cache_key(place.name, info.version)}.unfinished")


def _remove_others(folder: Path, those: set[Path]) -> None:
    for path in _walk(folder):
        if path not in those:
            path.unlink()


def _walk(folder: Path) -> Iterator[Path]:
    for inside, _, names in os.walk(folder):
        yield from (Path(inside, name) for name in names)
