"""The user's own text: which files, cut into which shards, and the documents in them, each with its split."""

import glob
import hashlib
import itertools
import json
import math
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from tqdm import tqdm

from bertjax.config import Split
from bertjax.data.document import Document
from bertjax.data.sources.formats import BadError, Layout, Part, parts_of, read
from bertjax.data.sources.sentences import split_sentences
from bertjax.errors import BertjaxError

MAX_SENTENCES = 4096  # of a document in one piece: longer ones come in parts, so that not all of one is in memory
HELD_OUT = 0.01  # of the documents are "valid", and as many "test"
SHARD_BYTES = 1 << 25  # a few seconds' work: so much is lost when a build is killed
_RULES = 2  # part of every fingerprint: after a change of what documents and sentences are, corpora are built anew

Shard = list[Part]


class Skipped:
    """What cannot be read and is left out: how much for which reason, and the first of it in words."""

    SHOWN = 10

    def __init__(self) -> None:
        self.counts, self.such_as = Counter[str](), list[str]()

    def add(self, error: BadError) -> None:
        """Counts one more."""
        self.counts[error.reason] += 1
        if len(self.such_as) < self.SHOWN:
            self.such_as.append(f"skipped: {error}")


def told(skipped: Mapping[str, int]) -> str:
    """Returns the counts of what was skipped, the greatest first, in words."""
    reasons = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    each = "; ".join(f"{reason}: {count:,}" for reason, count in reasons)
    return f"{sum(skipped.values()):,} files and records that cannot be read ({each})"


class UserFiles(NamedTuple):
    """The files that data.path or data.eval_path names, and how they are read."""

    files: tuple[Path, ...]
    layout: Layout
    fingerprint: str
    divided: bool  # whether a document's text decides its split

    def splits(self, split: Split) -> tuple[Split, ...]:
        """Returns all splits that come from the same files as one does."""
        return get_args(Split) if self.divided else (split,)

    def key(self, split: Split) -> str:
        """Returns what changes whenever the documents of a split would."""
        return f"{self.fingerprint}/{split if self.divided else None}"

    def documents(self, split: Split, *, most_bytes: float = math.inf) -> Iterator[Document]:
        """Streams a split's documents.

        Args:
          most_bytes: of files, where there are more, are read, taken evenly from all over them.
        """
        plan = shards(self.files, self.layout)
        share = min(1.0, most_bytes / max(1, sum(part.size for shard in plan for part in shard)))
        some = [plan[int(number / share)] for number in range(max(1, round(share * len(plan))))]
        bar = tqdm(some, desc="reading for the vocabulary", leave=False, disable=not sys.stderr.isatty())
        skipped = Skipped()
        for own, document in documents((part for shard in bar for part in shard), self.layout, skipped):
            if not self.divided or own == split:
                yield document
        if skipped.counts:
            warnings.warn(f"skipped, of what the vocabulary is built from: {told(skipped.counts)}", stacklevel=2)


class Files:
    """Splits of the user's text.

    Args:
      splits: those to be read.
      path: as `find_files` takes it; all of it is "train" where `eval_path` is given.
      eval_path: likewise, of every other split.
      layout: how they are read.

    Raises:
      BertjaxError: there is no file, or one cannot be read.
    """

    name = "files"

    def __init__(self, splits: Sequence[Split], path: str, eval_path: str | None, layout: Layout):
        self._files = {}
        for split in splits:
            found = find_files(path if eval_path is None or split == "train" else eval_path)
            self._files[split] = UserFiles(tuple(found), layout, fingerprint(found, layout), divided=eval_path is None)

    def fingerprint(self, split: Split) -> str:
        """Returns what changes with the files' sizes and times, and with how they are read."""
        return self._files[split].key(split)

    def documents(self, split: Split) -> Iterator[Document]:
        """Streams the split's documents."""
        return self._files[split].documents(split)

    def user_files(self, split: Split) -> UserFiles | None:
        """Returns the split's files."""
        return self._files[split]


def find_files(path: str) -> list[Path]:
    """Returns the files that data.path or data.eval_path names, each once, in the order of names.

    Args:
      path: files, folders and globs, apart by the system's `:`; of a folder all that is in and below it, not hidden.

    Raises:
      BertjaxError: one of them names nothing.
    """
    found: list[Path] = []
    for part in path.split(os.pathsep):
        name = os.path.expanduser(part)
        if os.path.isdir(name):
            inside = (Path(folder, file) for folder, _, files in os.walk(name) for file in files)
            files = [file for file in inside if not _is_hidden(file.relative_to(name))]
            remedy = "a folder with text in it"
        else:
            files = [Path(name)] if os.path.isfile(name) else [Path(match) for match in _matches(name)]
            remedy = "a file, a folder or a pattern such as 'texts/**/*.jsonl.gz'"
        if not files:
            raise BertjaxError(f"there is no file at {part!r}; give {remedy} as data.path or data.eval_path")
        found += sorted(files)
    return list(dict.fromkeys(found))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _matches(pattern: str) -> list[str]:
    return [match for match in glob.glob(pattern, recursive=True) if os.path.isfile(match)]


def fingerprint(files: Iterable[Path], layout: Layout) -> str:
    """Returns what changes with the files' names, sizes, times of change and order, and with how they are read.

    Their content is not hashed: of a large corpus that alone would take minutes at every start.
    """
    seen = []
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise BertjaxError(f"cannot read {file}: {error.strerror}; make it readable, or leave it out") from None
        seen.append((file.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps([_RULES, seen, layout]).encode()).hexdigest()


def shards(files: Iterable[Path], layout: Layout, size: int = SHARD_BYTES) -> list[Shard]:
    """Cuts files, in their order, into shards: of a large file parts, of small ones many.

    Compressed files are not cut, nor is one that is a single document.

    Args:
      size: bytes that a shard has, about.
    """
    found: list[Shard] = []
    room = 0
    for file in files:
        for part in parts_of(file, layout, size):
            if not found or room < part.size / 2:  # a part is never much larger
                found.append([])
                room = size
            found[-1].append(part)
            room -= part.size
    return found


def documents(
    parts: Iterable[Part], layout: Layout, skipped: Skipped | None = None
) -> Iterator[tuple[Split, Document]]:
    """Streams the documents that have a sentence, each as one paragraph, or several where it is very long.

    Each comes with the split it belongs to where none is given files of its own: one document in a hundred is "valid",
    another "test", the others "train". Which it is depends on its text alone.

    Args:
      skipped: is told of what cannot be read where `layout.on_bad` has that skipped.

    Raises:
      BertjaxError: a file or a record cannot be read, and is not to be skipped.
    """

    def sentences(block: Iterator[str]) -> Iterator[str]:
        return map(str.strip, block) if layout.sentence == "line" else split_sentences(block, layout.language)

    def complain(error: BadError) -> None:
        if layout.on_bad == "stop":
            raise BertjaxError(f"{error}; mend it, leave it out, or have such skipped by data.on_bad: skip") from None
        if skipped is not None:
            skipped.add(error)

    for part in parts:
        try:
            for document in read(part, layout):
                if isinstance(document, BadError):
                    complain(document)
                    continue
                split: Split | None = None
                for paragraph in _in_parts(sentence for block in document for sentence in sentences(block)):
                    split = split or _split_of(paragraph)
                    yield split, [paragraph]
        except BadError as error:
            complain(error)


def _in_parts(sentences: Iterator[str]) -> Iterator[list[str]]:
    there = filter(None, sentences)
    while part := list(itertools.islice(there, MAX_SENTENCES)):
        yield part


def _split_of(sentences: list[str]) -> Split:
    text = "\n".join(sentences).encode("utf-8", "surrogatepass")
    share = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64
    return "valid" if share < HELD_OUT else "test" if share < 2 * HELD_OUT else "train"
