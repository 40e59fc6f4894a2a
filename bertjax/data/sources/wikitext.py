"""WikiText-2 (Merity et al., "Pointer Sentinel Mixture Models", 2016), from files that are found or downloaded."""

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertjax.config import Split
from bertjax.data.document import Document
from bertjax.data.sources.files import UserFiles
from bertjax.data.sources.source import Unavailable
from bertjax.data.sources.wikitext_download import download, file_name
from bertjax.errors import BertjaxError
from bertjax.storage.paths import user_path

MAX_PARAGRAPHS = 1024  # of a document


class WikiText2:
    """Splits of WikiText-2, from the first of `folders` that has their files; what is missing is downloaded.

    Args:
      splits: those to be read.
      path: a folder with the files, which is looked in first.
      cache: downloads go to its folder wikitext-2.

    Raises:
      Unavailable: with every place tried and why it did not serve.
      BertjaxError: `path` is not a folder, or the cache cannot be written.
    """

    name = "wikitext-2"

    def __init__(self, splits: Sequence[Split], path: str | Path | None, cache: str | Path):
        tried = folders(path, cache)
        home = tried[-1]
        self._files = find_files(splits, tried)
        missing = [split for split in splits if split not in self._files]
        try:
            download(missing, home)
        except OSError as error:
            why = error.strerror or error
            raise BertjaxError(f"cannot write to {home} ({why}): set data.cache to a folder with room") from None
        except BertjaxError as error:
            raise Unavailable(f"{error}; nor is it in {', '.join(map(str, tried))}") from None
        self._files |= find_files(missing, [home])

    def fingerprint(self, split: Split) -> str:
        """Returns the git blob id of the split's file."""
        try:
            return blob_id_of_file(self._files[split])
        except OSError as error:
            raise BertjaxError(f"cannot read {self._files[split]}: {error.strerror or error}") from None

    def documents(self, split: Split) -> Iterator[Document]:
        """Streams the split's articles."""
        return documents(self._files[split])

    def user_files(self, split: Split) -> UserFiles | None:
        """Returns None: the text is small."""
        return None


def folders(path: str | Path | None, cache: str | Path) -> list[Path]:
    """Folders that may have the files, in the order in which they are looked in; the last is where downloads go.

    They are `path`, $BERTJAX_DATA/wikitext-2 and `cache`/wikitext-2.

    Raises:
      BertjaxError: `path` is not a folder.
    """
    found = [user_path(path)] if path is not None else []
    if found and not found[0].is_dir():
        raise BertjaxError(f"data.path={path} is not a folder: give the one with the wiki.*.tokens files")
    if os.environ.get("BERTJAX_DATA"):
        found.append(user_path(os.environ["BERTJAX_DATA"]) / "wikitext-2")
    return [*found, Path(cache, "wikitext-2")]


def find_files(splits: Sequence[Split], folders: Sequence[Path]) -> dict[Split, Path]:
    """Returns each split's file in the first folder that has it, without the splits that none has."""
    found: dict[Split, Path] = {}
    for split in splits:
        for folder in folders:
            if os.path.isfile(folder / file_name(split)):
                found.setdefault(split, folder / file_name(split))
    return found


def blob_id_of_file(path: Path) -> str:
    """Returns `blob_id` of a file's content, of which little is in memory at a time."""
    with open(path, "rb") as file:
        sha1 = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            sha1.update(chunk)
    return sha1.hexdigest()


def documents(path: Path) -> Iterator[Document]:
    """Streams the articles that have paragraphs; a paragraph is a list of sentences, as they are in the file.

    "Dive into Deep Learning", section 15.9: a line is a paragraph if ` . ` splits it into sentences. A text without
    titles comes in parts of MAX_PARAGRAPHS, so that not all of it is in memory.

    Raises:
      BertjaxError: the file cannot be read, or has bytes that are no text.
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
    """Yields the lines as open(path) gives them, line ends translated; an error says where the bad byte is."""
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
