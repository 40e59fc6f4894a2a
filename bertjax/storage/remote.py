"""Files at URLs, by fsspec: tried again where a connection fails, and told of in a line where that does not help.

Credentials and endpoints are those that fsspec's packages find themselves, as AWS_PROFILE and AWS_ENDPOINT_URL.
"""

import concurrent.futures
import contextlib
import datetime
import errno
import importlib
import logging
import random
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bertjax.errors import BertjaxError

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

# What a protocol needs beside fsspec, and our extra that brings it.
_NEEDED = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "abfss": ("adlfs", "azure"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
    "memory": (None, None),  # of this process, for tests
}
_READ_ONLY = ("http", "https")
_DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between tries
_FINAL = (PermissionError, IsADirectoryError, NotADirectoryError, InterruptedError)
# Bases of what fsspec's packages raise that is no OSError: aiohttp's, botocore's, gcsfs's, azure's.
_OF_CONNECTIONS = {"ClientError", "HTTPClientError", "IncompleteReadError", "HttpError", "AzureError", "Timeout"}
# What tells one content of a file from another, the first that a store gives: with its listings and of a single file.
_VERSION = ("ETag", "etag", "generation", "md5Hash", "LastModified", "Last-Modified", "last_modified", "created")
_BLOCK = 1 << 24  # bytes that are asked for at once
_AT_ONCE = 8  # files


class Absent(BertjaxError):
    """Nothing is at a URL."""


class Info(NamedTuple):
    """What is known of a file at a URL, or of a folder."""

    is_file: bool
    size: int | None  # bytes
    version: str | None  # another one for other content; None where the server does not tell


def check_url(url: str, *, write: bool = False) -> None:
    """Raises BertjaxError where a URL cannot be read, or written, from here whatever is there: before any work."""
    protocol, _, rest = url.partition("://")
    if protocol not in _NEEDED:
        raise BertjaxError(f"{shown_url(url)} is of no protocol that is read here; give one of {', '.join(_NEEDED)}")
    secret = rest.partition("/")[0].rpartition("@")[0]
    if ":" in secret:
        raise BertjaxError(
            f"a URL of {protocol} has a password in it, which every message would show; set it as its package reads it"
        )
    if write and protocol in _READ_ONLY:
        raise BertjaxError(f"{shown_url(url)} can be read alone; give a path, or a URL such as s3://bucket/name")
    package, extra = _NEEDED[protocol]
    try:
        importlib.import_module(package or "fsspec")
    except ImportError:
        raise BertjaxError(
            f"{shown_url(url)} needs {package}, which is not installed: pip install 'bertjax[{extra}]'"
        ) from None


def shown_url(url: str) -> str:
    """Returns a URL without what signs it, as messages show it."""
    return url.partition("?")[0] if url.startswith(_READ_ONLY) else url


def check_name(remote: "Remote", name: str) -> None:
    """Raises BertjaxError where no file here, within a folder, can have the name of one at a URL."""
    if {"", ".", ".."} & {*name.split("/")} or "\0" in name:
        raise BertjaxError(f"{remote.url} has a file of the name {name!r}, which none here can have; rename it")


class Remote:
    """A file, or a folder of files, at a URL. Each method raises BertjaxError where it fails, `Absent` for nothing.

    Args:
      write: it is to be written, too.
    """

    def __init__(self, url: str, *, write: bool = False):
        check_url(url, write=write)
        import fsspec

        self.url = url.rstrip("/")
        # Listings that are kept would hide what others have written.
        self._fs, self._path = fsspec.url_to_fs(self.url, use_listings_cache=False)
        self._stopped = threading.Event()

    def info(self, name: str = "") -> Info:
        """Returns what is known of a file, or of the folder."""
        return _info(self._tried("read", name, lambda: self._fs.info(self._at(name))))

    def exists(self) -> bool:
        """Tells whether something is there."""
        try:
            self.info()
        except Absent:
            return False
        return True

    def listing(self, pattern: str = "") -> dict[str, Info]:
        """Returns the files in the folder and below, or those of them that a pattern matches, by their names there."""
        find = self._fs.glob if pattern else self._fs.find
        found = self._tried("read", pattern, lambda: find(self._at(pattern), detail=True))
        named = {name[len(self._path) :].lstrip("/"): _info(info) for name, info in sorted(found.items())}
        return {name: info for name, info in named.items() if info.is_file and name and not name.endswith("/")}

    def read(self, name: str = "") -> bytes:
        """Returns a small file."""
        return self._tried("read", name, lambda: self._fs.cat_file(self._at(name)))

    def write(self, content: bytes, name: str = "", *, new: bool = False) -> None:
        """Writes a small file, whole or not at all.

        Args:
          new: it is not replaced; FileExistsError where it is there, and the store can tell.
        """
        mode = "create" if new else "overwrite"
        self._tried("write", name, lambda: self._fs.pipe_file(self._at(name), content, mode=mode))

    def upload(self, file: Path, name: str = "") -> None:
        """Writes a file from here. It is there when it is whole, as stores of objects have it."""
        self._tried("write", name, lambda: self._fs.put_file(str(file), self._at(name)))
        if (there := self.info(name).size) != (size := file.stat().st_size):
            raise BertjaxError(f"{self._named(name)} has {there} bytes and should have {size}; try again")

    def download(self, to: Path, name: str = "", *, info: Info | None = None) -> None:
        """Fetches a file in blocks; given again after an accident it goes on where it was.

        Args:
          to: what is there already must be of the same version.
          info: of the file, where that is known.
        """
        size = (info or self.info(name)).size
        if size is None or self.url.startswith(_READ_ONLY):  # whose servers need not tell parts of a file
            self._tried("read", name, lambda: self._fs.get_file(self._at(name), str(to)))
        else:
            with open(to, "ab") as file:
                file.truncate(min(file.tell(), size))
                while (at := file.seek(0, 2)) < size:
                    file.write(self._block(name, at, min(at + _BLOCK, size)))
        if size is not None and (has := to.stat().st_size) != size:
            to.unlink()
            raise BertjaxError(f"{self._named(name)} has {size} bytes, and {has} came; try again")

    def each(self, call: Callable[[str], None], names: Iterable[str]) -> None:
        """Makes a call for each name, in several threads; where one fails the others are stopped."""
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for _ in pool.map(call, names):
                    pass
            except BaseException:
                self._stopped.set()
                raise
            finally:
                pool.shutdown(cancel_futures=True)
                self._stopped.clear()

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with contextlib.suppress(Absent):
            self._tried("write", name, lambda: self._fs.rm_file(self._at(name)))

    def _block(self, name: str, start: int, end: int) -> bytes:
        def get() -> bytes:
            block: bytes = self._fs.cat_file(self._at(name), start=start, end=end)
            if len(block) != end - start:
                raise ConnectionError(f"{len(block)} bytes came of {end - start}")
            return block

        return self._tried("read", name, get)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _named(self, name: str) -> str:
        return shown_url(f"{self.url}/{name}" if name else self.url)

    def _tried(self, do: str, name: str, call: Callable[[], Found]) -> Found:
        """Returns what the call does, which is made again while it fails as connections do."""
        where = self._named(name)
        for delay in (*_DELAYS, None):
            try:
                if self._stopped.is_set():
                    raise InterruptedError("stopped")
                return call()
            except FileNotFoundError:
                raise Absent(f"there is nothing at {where}; give another URL") from None
            except FileExistsError:
                raise
            except Exception as error:  # of whatever package
                told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                if delay is None or not _passes(error):
                    raise BertjaxError(f"cannot {do} {where} ({told}); see to it and try again") from error
                delay *= random.uniform(0.75, 1.25)  # many that were cut off do not come back at once
                logger.warning("cannot %s %s (%s): trying again in %.0f s", do, where, told, delay)
                self._stopped.wait(delay)
        raise AssertionError


def _info(info: dict[str, Any]) -> Info:
    tag = next((info[key] for key in _VERSION if info.get(key) is not None), None)
    if isinstance(tag, datetime.datetime):  # which a listing may have as a number
        tag = tag.timestamp()
    return Info(info["type"] == "file", info.get("size"), None if tag is None else f"{tag} {info.get('size')}")


def _passes(error: Exception) -> bool:
    """Tells whether an error is one that passes: of a connection, or of a server that has too much to do."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(status, int):
        return status in (408, 425, 429) or status >= 500
    if isinstance(error, OSError):
        return not isinstance(error, _FINAL) and error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return bool(_OF_CONNECTIONS & {kind.__name__ for kind in type(error).__mro__})
