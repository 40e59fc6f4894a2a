"""WikiText-2 (Merity et al., "Pointer Sentinel Mixture Models", 2016): its files, and how they are had."""

import hashlib
import http.client
import importlib.util
import io
import os
import re
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from bertjax.errors import BertjaxError

# What `git hash-object` says of each split's file: mirrors may pack the files as they like.
BLOB_IDS = {
    "train": "2d84b35af79e411d73ea7cae83c73964c6ac83b4",
    "valid": "eec944eb2d9e46061cd34a6913528797db6842fc",
    "test": "6f3fc88e4cd88456ea892971f9f12243e8428624",
}
MAX_BYTES = 16 << 20  # of a download or a file in it; the largest, train, has 10.8 MB
MAX_PARAGRAPHS = 1024  # of a document
PAUSE = 0.3  # seconds before a mirror is tried again


def file_name(split: str) -> str:
    return f"wiki.{split}.tokens"


def blob_id(data: bytes) -> str:
    """The hex SHA-1 that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def blob_id_of_file(path: Path) -> str:
    """The same of a file's content, of which little is in memory at a time."""
    with open(path, "rb") as file:
        sha1 = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            sha1.update(chunk)
    return sha1.hexdigest()


def documents(path: Path) -> Iterator[list[list[str]]]:
    """Streams the articles that have paragraphs; a paragraph is a list of sentences, as they are in the file.

    "Dive into Deep Learning", section 15.9: a line is a paragraph if ` . ` splits it into sentences. A text without
    titles comes in parts of MAX_PARAGRAPHS, so that not all of it is in memory.
    Raises BertjaxError for bytes that are no text.
    """
    paragraphs: list[list[str]] = []
    blank = True
    for line in _lines(path):
        if len(paragraphs) == MAX_PARAGRAPHS:
            yield paragraphs
            paragraphs = []
        # Formulas leave lines like ` = 1 <unk> and C = ` in an article, but not after a blank line.
        if blank and re.fullmatch(r" = [^=](.*[^=])? = \n?", line):
            if paragraphs:
                yield paragraphs
            paragraphs = []
        if len(line.split(" . ")) >= 2:
            paragraphs.append(line.strip().split(" . "))
        blank = not line.strip()
    if paragraphs:
        yield paragraphs


def _lines(path: Path) -> Iterator[str]:
    """The lines as open(path) gives them, line ends translated; an error says where the bad byte is."""
    offset = 0
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                yield from io.StringIO(_text(path, raw, number, offset), newline=None)
                offset += len(raw)
    except OSError as error:
        raise BertjaxError(f"cannot read {path}: {error.strerror or error}") from None


def _text(path: Path, raw: bytes, number: int, offset: int) -> str:
    if (start := raw.find(b"\0")) >= 0:
        raise BertjaxError(f"{path} has a NUL at byte {offset + start} (line {number}): give a UTF-8 text file")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {offset + error.start} (line {number})"
        raise BertjaxError(f"{path} is not UTF-8 at {where}: convert it to UTF-8") from None


class _Failed(Exception):
    """Why a mirror gave nothing."""


class _Transient(_Failed):
    """Another try may do better."""


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise _Failed(f"more than {MAX_BYTES} bytes")


def _plain(body: bytes, split: str) -> bytes:
    return body


def _from_zip(body: bytes, split: str) -> bytes:
    """The member's bytes; the archive's own paths are never used, so that it cannot choose where to write."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive, archive.open(f"wikitext-2/{file_name(split)}") as file:
        data = file.read(MAX_BYTES + 1)
    _check_size(len(data))
    return data


def _from_parquet(body: bytes, split: str) -> bytes:
    """A row a line, the empty string for the file's ` \\n`."""
    import pyarrow.parquet as parquet

    data = bytearray()
    for batch in parquet.ParquetFile(io.BytesIO(body)).iter_batches(batch_size=1024, columns=["text"]):
        data += "".join(row or " \n" for row in batch.column(0).to_pylist()).encode()
        _check_size(len(data))
    return bytes(data)


class Mirror(NamedTuple):
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

    `timeout` is in seconds for one read, `total_seconds` for all, of which each mirror gets an even share.
    Raises BertjaxError with each mirror's reason when none serves, OSError when `folder` cannot be written.
    """
    end = time.monotonic() + total_seconds
    missing = [split for split in dict.fromkeys(splits) if not os.path.isfile(folder / file_name(split))]
    if not missing:
        return
    reasons = []
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as staging:
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
                    part = Path(staging, file_name(split))
                    part.write_bytes(_unpack(mirror, body, split, pins[split]))
                    os.replace(part, folder / part.name)
                    missing.remove(split)
            except _Failed as failure:
                reasons.append(f"{url}: {failure}")
            if not missing:
                return
    why = " ".join("; ".join(reasons).split()) or "no mirrors"
    raise BertjaxError(f"WikiText-2 ({', '.join(missing)}) cannot be downloaded: {why}")


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
    """read() in a thread: urllib bounds one wait, but neither a name's look-up nor a server that drips."""
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
