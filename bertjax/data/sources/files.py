"""The user's own text: which files, cut into which shards, and the documents in them, each with its split."""

import functools
import glob
import hashlib
import itertools
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from tqdm import tqdm

from bertjax.config import Split
from bertjax.data.document import Document
from bertjax.data.sources.formats import Layout, parts_of, read
from bertjax.data.sources.lines import BadError, Part
from bertjax.data.sources.sentences import split_sentences
from bertjax.data.sources.splits import SAVED_SPLITS, saved_files
from bertjax.errors import BertjaxError, warn

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
            warn(f"skipped, of what the vocabulary is built from: {told(skipped.counts)}", stacklevel=2)


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


def find_files(path: str, keys: str = "data.path or data.eval_path") -> list[Path]:
    """Returns the files that a path of the user's names, each once, in the order of names.

    Args:
      path: files, folders and globs, apart by the system's `:`, which may also be in the name of what is there. Of a
        folder, all files that are in and below it, not hidden; folders that it has links to are followed.
        Of one that `datasets` saved, those with its rows.
      keys: of the configuration, that may have named it.

    Raises:
      BertjaxError: one of them names nothing, or what cannot be read as often as a text is.
    """
    found: dict[str, Path] = {}
    for part in _names(path):
        name = os.path.expanduser(part)
        remedy = "a file, a folder or a pattern such as 'texts/**/*.jsonl.gz'"
        if os.path.isdir(name):
            files = [os.path.join(folder, file) for folder, inside in _folders(name) for file in inside]
            remedy = "a folder with text in it"
        elif os.path.exists(name) and not os.path.isfile(name):
            raise BertjaxError(f"{part} is a pipe or a device, and text is read more than once; give a file of it")
        else:
            files = [name] if os.path.isfile(name) else _matches(name)
        if not files:
            raise BertjaxError(f"there is no file at {part!r}; give {remedy} as {keys}")
        for file in sorted(map(Path, files)):
            found.setdefault(_real_name(file), file)
    return list(found.values())


def _names(path: str) -> Iterator[str]:
    """Yields what is between the `:`, but those of the longest name that there is."""
    parts = path.split(os.pathsep)
    while parts:
        names = [os.pathsep.join(parts[:number]) for number in range(len(parts), 0, -1)]
        name = next((name for name in names if os.path.exists(os.path.expanduser(name))), parts[0])
        yield name
        parts = parts[name.count(os.pathsep) + 1 :]


def _folders(top: str) -> Iterator[tuple[str, list[str]]]:
    """Yields a folder and those below it, not hidden, each once whatever links lead to it, and the files in each."""

    def refuse(error: OSError) -> None:
        remedy = "make it readable, or leave it out"
        raise BertjaxError(f"cannot read {error.filename}: {error.strerror}; {remedy}") from None

    seen = set()
    for folder, folders, names in os.walk(top, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # Links last: what they lead to has its own name where it is below the same top.
        folders[:] = sorted(_shown(folders), key=lambda name: (os.path.islink(os.path.join(folder, name)), name))
        names = [name for name in _shown(names) if _is_text_file(os.path.join(folder, name))]
        saved = saved_files(folder) if "state.json" in names else None
        yield folder, [name for name in names if name != SAVED_SPLITS] if saved is None else saved


def _shown(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def _is_text_file(name: str) -> bool:
    return os.path.isfile(name) or not os.path.exists(name)  # a link to nothing is complained of, not left out


def _matches(pattern: str) -> list[str]:
    """Expands a pattern as `glob` does, whose `**` would follow a link to a folder above it again and again."""
    first, *others = re.split(r"(?:(?<=/)|^)\*\*(?:/+|$)", pattern)
    found = [first] if others and not first else glob.glob(first)
    for rest in others:
        tops = [folder for top in found for folder, _ in _folders(top or os.curdir)]
        found = [os.path.join(top, match) for top in tops for match in glob.glob(rest or "*", root_dir=top)]
    return [match for match in found if os.path.isfile(match)]


def _real_name(file: Path) -> str:
    return os.path.realpath(file) if file.is_symlink() else os.path.join(_real_folder(file.parent), file.name)


@functools.lru_cache(maxsize=1)  # files come a folder after the other
def _real_folder(folder: Path) -> str:
    return os.path.realpath(folder)


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
