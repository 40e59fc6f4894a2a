"""The download of WikiText-2's files, from the first of several mirrors that serves them unchanged."""

import hashlib
import http.client
import importlib.util
import io
import logging
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from bertjax.errors import BertjaxError
from bertjax.storage.cache import building_in

_logger = logging.getLogger(__name__)

# `git hash-object` of each split's file: mirrors may pack the files as they like.
BLOB_IDS = {
    "train": "2d84b35af79e411d73ea7cae83c73964c6ac83b4",
    "valid": "eec944eb2d9e46061cd34a6913528797db6842fc",
    "test": "6f3fc88e4cd88456ea892971f9f12243e8428624",
}
MAX_BYTES = 16 << 20  # of a download or a file in it; the largest, train, has 10.8 MB
PAUSE = 0.3  # seconds before a mirror is tried again


def file_name(split: str) -> str:
    """Returns the name that a split's file has in WikiText's own archive."""
    return f"wiki.{split}.tokens"


def blob_id(data: bytes) -> str:
    """Returns the hex SHA-1 that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class _Failed(Exception):
    """Says why a mirror gave nothing."""


class _Transient(_Failed):
    """Says so where another try may do better."""


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise _Failed(f"more than {MAX_BYTES} bytes")


def _plain(body: bytes, split: str) -> bytes:
    return body


def _from_zip(body: bytes, split: str) -> bytes:
    """Returns the member's bytes; the archive's paths are never used, so that it cannot choose where to write."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive, archive.open(f"wikitext-2/{file_name(split)}") as file:
        data = file.read(MAX_BYTES + 1)
    _check_size(len(data))
    return data


def _from_parquet(body: bytes, split: str) -> bytes:
    """Returns the file of which each row is a line, the empty string standing for the file's ` \\n`."""
    import pyarrow.parquet as parquet

    data = bytearray()
    for batch in parquet.ParquetFile(io.BytesIO(body)).iter_batches(batch_size=1024, columns=["text"]):
        data += "".join(row or " \n" for row in batch.column(0).to_pylist()).encode()
        _check_size(len(data))
    return bytes(data)


class Mirror(NamedTuple):
    """A place on the web that has the files, as they are or packed."""

    url: str  # may hold {split} (train, valid, test) or {long_split} (train, validation, test)
    unpack: Callable[[bytes, str], bytes] = _plain  # (body, split) -> the split's file
    sha1: str | None = None  # of the body, so that only a known archive is opened
    needs: str | None = None  # a package that the extra `parquet` brings


MIRRORS = (
    Mirror(
        "https://wikitext.smerity.com/wikitext-2-v1.zip",
        _from_zip,
        sha1="3c914d17d80b1459be871a5039ac23e752a53cbe",
    ),
    Mirror(
        "https://raw.githubusercontent.com/pytorch/examples/cf74c81ec00256a9511c054aaf0b3f62cd3aa62d"
        "/word_language_model/data/wikitext-2/{split}.txt"
    ),
    Mirror(
        "https://huggingface.co/datasets/Salesforce/wikitext/resolve/main/wikitext-2-v1"
        "/{long_split}-00000-of-00001.parquet",
        _from_parquet,
        needs="pyarrow",
    ),
)


def download(
    splits: Sequence[str],
    folder: Path,
    *,
    mirrors: Sequence[Mirror] = MIRRORS,
    pins: Mapping[str, str] = BLOB_IDS,
    timeout: float = 10.0,
    total_seconds: float = 600.0,
    attempts: int = 3,
) -> None:
    """Puts the missing splits into `folder`, each whole and verified, from the first mirror that serves.

    Args:
      mirrors: in the order in which they are tried.
      pins: the git blob id of each split's file.
      timeout: seconds for one read.
      total_seconds: for everything; each mirror gets an even share of what is left.
      attempts: on a mirror that fails in a way that may pass.

    Raises:
      BertjaxError: no mirror serves, with the reason of each.
      OSError: `folder` cannot be written.
    """
    end = time.monotonic() + total_seconds
    missing = [split for split in dict.fromkeys(splits) if not os.path.isfile(folder / file_name(split))]
    if not missing:
        return
    _logger.info(f"fetching WikiText-2 ({', '.join(missing)}) into {folder}, once")
    reasons = []
    folder.mkdir(parents=True, exist_ok=True)
    with building_in(folder) as staging:
        for turn, mirror in enumerate(mirrors):
            now = time.monotonic()
            deadline = now + (end - now) / (len(mirrors) - turn)
            url, body = "", b""
            try:
                for split in list(missing):
                    long_split = "validation" if split == "valid" else split
                    url, before = mirror.url.format(split=split, long_split=long_split), url
                    if url != before:  # a zip has one address for all splits
                        body = _fetch(mirror, url, timeout, deadline, attempts)
                    part = staging / file_name(split)
                    part.write_bytes(_unpack(mirror, body, split, pins[split]))
                    os.replace(part, folder / part.name)
                    missing.remove(split)
            except _Failed as failure:
                reasons.append(f"{url}: {failure}")
            if not missing:
                return
    why = " ".join("; ".join(reasons).split()) or "no mirrors"
    raise BertjaxError(f"WikiText-2 ({', '.join(missing)}) cannot be downloaded{_by_proxy()}: {why}")


def _by_proxy() -> str:
    """The proxy that the environment names, which may be what fails; without the password that may be in it."""
    proxy = urllib.parse.urlsplit(urllib.request.getproxies().get("https", ""))
    return f" by way of the proxy {proxy.netloc.rpartition('@')[2]}" if proxy.netloc else ""


def _unpack(mirror: Mirror, body: bytes, split: str, pin: str) -> bytes:
    try:
        data = mirror.unpack(body, split)
    except Exception as error:  # zipfile and pyarrow raise anything on hostile bytes
        raise _Failed(f"cannot be unpacked: {str(error) or type(error).__name__}") from None
    if blob_id(data) != pin:
        raise _Failed(f"wrong hash of {split}: {blob_id(data)}, not {pin}")
    return data


def _fetch(mirror: Mirror, url: str, timeout: float, deadline: float, attempts: int) -> bytes:
    if mirror.needs and importlib.util.find_spec(mirror.needs) is None:
        raise _Failed("needs pip install 'bertjax[parquet]'")
    while True:
        attempts -= 1
        try:
            body = _in_time(deadline, partial(_read, url, timeout, deadline))
            break
        except _Transient:
            if attempts <= 0 or time.monotonic() + PAUSE > deadline:
                raise
            time.sleep(PAUSE)
    if mirror.sha1 and hashlib.sha1(body, usedforsecurity=False).hexdigest() != mirror.sha1:
        raise _Failed("wrong hash of the archive")
    return body


def _in_time(deadline: float, read: Callable[[], bytes]) -> bytes:
    """Calls read in a thread: urllib bounds one wait, but neither a name's look-up nor a server that drips."""
    answers: list[bytes | Exception] = []

    def work() -> None:
        try:
            answers.append(read())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=work, name="bertjax-download", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    answer = answers[0] if answers else _Failed("timed out")
    if isinstance(answer, Exception):
        raise answer
    return answer


def _read(url: str, timeout: float, deadline: float) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "bertjax/0.1"})  # Python's is refused
    body = bytearray()
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            size, name = response.length, url.rpartition("/")[2]
            with tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=None) as bar:
                while chunk := response.read1(1 << 16):
                    body += chunk
                    bar.update(len(chunk))
                    _check_size(max(len(body), size or 0))
                    if time.monotonic() > deadline:
                        raise _Failed("timed out")
    except urllib.error.HTTPError as error:
        error.close()
        kind = _Transient if error.code >= 500 or error.code in (408, 429) else _Failed
        raise kind(f"HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        kind = _Failed if isinstance(reason, TimeoutError) else _Transient  # a silent server costs enough once
        raise kind(str(reason) or type(reason).__name__) from None
    if size is not None and len(body) < size:
        raise _Transient(f"cut short at {len(body)} of {size} bytes")
    return bytes(body)
