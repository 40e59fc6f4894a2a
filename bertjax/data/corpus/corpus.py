"""The tokenised corpus on disk: ids, sentence and paragraph offsets; built once, memory-mapped afterwards.

It is written in shards, each whole in itself, and these are joined: whatever its shards, a corpus is the same.
"""

import contextlib
import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from bertjax.data.document import Document
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.storage.cache import Found, cache_key, read_or_build

FORMAT = 1  # part of every key: after a change of layout the cache builds anew instead of misreading
_ID_DTYPES = ("<u2", "<u4")
_CHARACTERS_AT_ONCE = 1 << 18  # some of the engine's batches; its own record of a token takes more than 100 bytes
_NUMBERS_AT_ONCE = 1 << 20


class Corpus(NamedTuple):
    """A split, tokenised: sentence i is `ids[sentences[i]:sentences[i + 1]]`, paragraphs likewise in sentences."""

    name: str
    digest: str  # SHA-256 of the arrays' own
    ids: np.ndarray  # [tokens], uint16 or uint32
    sentences: np.ndarray  # [sentences + 1], int64
    paragraphs: np.ndarray  # [paragraphs + 1], int64
    folder: Path | None = None  # where it is, if it is on disk: what is derived from it is stored there too
    skipped: Mapping[str, int] = MappingProxyType({})  # files and records that could not be read, by reason


def load_or_build(
    cache: Path, name: str, fingerprint: str, documents: Iterable[Document], tokenizer: Tokenizer
) -> Corpus:
    """Opens the tokenised corpus in the cache folder, where it is built first if need be.

    Args:
      cache: the cache folder.
      name: of the corpus in messages, and of its folder.
      fingerprint: stands for the documents' content; with the tokenizer it is the key in the cache.
      documents: read only to build.

    Raises:
      BertjaxError: the documents hold no sentence, or the cache cannot be written.
    """

    def build(built: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="shard-", dir=built.parent) as shard:
            write_shard(Path(shard), ((_ONLY, document) for document in documents), tokenizer)
            join(built, name, _ONLY, [Path(shard)], tokenizer)

    return read_or_build(folder_of(cache, name, fingerprint, tokenizer), read, build)


def read_or_derive(
    corpus: Corpus, name: str, read: Callable[[Path], Found | None], build: Callable[[Path], None]
) -> Found:
    """Calls `read_or_build` on a folder of what is derived from a corpus.

    Args:
      name: of the folder, which is kept in the corpus's own if that is on disk.
      read, build: as for `read_or_build`.
    """
    if corpus.folder is not None:
        return read_or_build(corpus.folder / name, read, build)
    with tempfile.TemporaryDirectory() as folder:  # a mapped file can be read even when its name is gone
        return read_or_build(Path(folder) / name, read, build)


_ONLY = "all"  # the split of a shard that has no others


def folder_of(cache: Path, name: str, fingerprint: str, tokenizer: Tokenizer) -> Path:
    """Returns the place of a corpus in the cache.

    Args:
      name: of the corpus and its split: "wikitext-2/valid".
      fingerprint: stands for the documents' content.
    """
    return cache / "corpora" / f"{name.replace('/', '-')}-{cache_key(FORMAT, fingerprint, tokenizer.to_json())}"


def write_shard(folder: Path, documents: Iterable[tuple[str, Document]], tokenizer: Tokenizer) -> None:
    """Tokenises documents, each for the corpus of its split, with memory for some of them at a time.

    Args:
      folder: gets the files SPLIT.ids, SPLIT.sentences and SPLIT.paragraphs.
      documents: each with its split.
    """
    with contextlib.ExitStack() as files:
        writers: dict[str, _Writer] = {}
        for split, document in documents:
            if split not in writers:
                writers[split] = _Writer(folder, split, tokenizer, files)
            for paragraph in document:
                writers[split].add(paragraph)
        for writer in writers.values():
            writer.flush()


class _Writer:
    """Writes a split's ids, and where its sentences and paragraphs end, counted from the shard's beginning."""

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer, files: contextlib.ExitStack):
        self._tokenizer, self._dtype = tokenizer, _dtypes(tokenizer)["ids"]
        self._files = {part: files.enter_context(open(folder / f"{split}.{part}", "wb")) for part in _PARTS}
        self._tokens = self._sentences = self._characters = 0
        self._waiting: list[list[str]] = []

    def add(self, paragraph: list[str]) -> None:
        self._waiting.append(paragraph)
        self._characters += sum(map(len, paragraph))
        if self._characters >= _CHARACTERS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Tokenises and writes what waits."""
        # As they are in a text: where spaces are parts of tokens, they begin with one but for a paragraph's first.
        spaced = ([*some[:1], *(sentence and f" {sentence}" for sentence in some[1:])] for some in self._waiting)
        encoded = self._tokenizer.encode_sentences(list(itertools.chain.from_iterable(spaced)))
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        # A sentence without words can be neither read nor predicted; the textbook's splitting makes some.
        there = lengths > 0
        kept = np.concatenate(([0], self._sentences + np.cumsum(there)))
        paragraph_ends = kept[np.cumsum([len(paragraph) for paragraph in self._waiting], dtype=np.int64)]
        ids = np.fromiter(itertools.chain.from_iterable(encoded), self._dtype, lengths.sum())
        self._files["ids"].write(ids.tobytes())
        self._files["sentences"].write((self._tokens + np.cumsum(lengths)[there]).astype("<i8").tobytes())
        not_empty = np.diff(paragraph_ends, prepend=self._sentences) > 0
        self._files["paragraphs"].write(paragraph_ends[not_empty].astype("<i8").tobytes())
        self._tokens, self._sentences = self._tokens + len(ids), self._sentences + int(there.sum())
        self._waiting, self._characters = [], 0


_PARTS = ("ids", "sentences", "paragraphs")


def _dtypes(tokenizer: Tokenizer) -> dict[str, str]:
    return {"ids": _ID_DTYPES[tokenizer.vocab_size > 2**16], "sentences": "<i8", "paragraphs": "<i8"}


def join(
    folder: Path,
    name: str,
    split: str,
    shards: Sequence[Path],
    tokenizer: Tokenizer,
    *,
    skipped: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Joins what shards hold of a split into a corpus.

    Args:
      folder: the corpus's, empty.
      skipped: files and records that could not be read, by reason.

    Raises:
      BertjaxError: they hold no sentence of it.
    """
    dtypes, digests, sizes = _dtypes(tokenizer), [], {}
    for part, dtype in dtypes.items():
        digest, size = hashlib.sha256(), 0
        with open(folder / f"{part}.bin", "wb") as file:
            for numbers in _joined(part, dtype, [shard / f"{split}.{part}" for shard in shards]):
                digest.update(numbers.data)
                file.write(numbers.data)
                size += len(numbers)
        digests.append(digest.digest())
        sizes[part] = size
    if not sizes["ids"]:
        raise BertjaxError(f"the corpus {name} is empty: its text holds no sentence; give one that does")
    of_all = hashlib.sha256(b"".join(digests)).hexdigest()
    info = {"name": name, "digest": of_all, "dtypes": dtypes, "sizes": sizes, "skipped": dict(skipped)}
    (folder / "info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")


def _joined(part: str, dtype: str, files: Iterable[Path]) -> Iterator[np.ndarray]:
    """Yields what files of one part hold; counts that begin anew in each shard go on from one to the next."""
    before = 0
    if part != "ids":
        yield np.zeros(1, dtype)
    for file in files:
        if not file.exists():  # a shard without a document of this split
            continue
        last = 0
        with open(file, "rb") as opened:
            while len(numbers := np.fromfile(opened, dtype, _NUMBERS_AT_ONCE)):
                yield numbers if part == "ids" else numbers + before
                last = int(numbers[-1])
        before += last


def read(folder: Path) -> Corpus | None:
    """Maps the corpus in a folder; None where there is none, or one whose info.json does not fit its files."""
    try:
        info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
        files = {part: folder / f"{part}.bin" for part in _PARTS}
        dtypes = {"ids": info["dtypes"]["ids"], "sentences": "<i8", "paragraphs": "<i8"}
        bytes_of_parts = {part: info["sizes"][part] * np.dtype(dtypes[part]).itemsize for part in files}
        if dtypes["ids"] not in _ID_DTYPES or bytes_of_parts != {part: files[part].stat().st_size for part in files}:
            return None
        arrays = {part: np.memmap(file, dtypes[part], mode="r") for part, file in files.items()}
        skipped = info.get("skipped", {})
        if isinstance(skipped, int):  # as older versions have it
            skipped = {"not told why": skipped} if skipped else {}
        return Corpus(str(info["name"]), str(info["digest"]), **arrays, folder=folder, skipped=dict(skipped))
    except (OSError, ValueError, KeyError, TypeError):
        return None
