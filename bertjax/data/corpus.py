"""The tokenised corpus on disk: ids, sentence and paragraph offsets; built once, memory-mapped afterwards."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

FORMAT = 1  # part of every key: after a change of layout the cache builds anew instead of misreading
_DOCUMENTS_AT_ONCE = 256


class Corpus(NamedTuple):
    """A split, tokenised: sentence i is `ids[sentences[i]:sentences[i + 1]]`, paragraphs likewise in sentences."""

    name: str
    digest: str  # SHA-256 of the arrays
    ids: np.ndarray  # [tokens], uint16 or uint32
    sentences: np.ndarray  # [sentences + 1], int64
    paragraphs: np.ndarray  # [paragraphs + 1], int64


def load_or_build(
    cache: Path, name: str, fingerprint: str, documents: Iterable[list[list[str]]], tokenizer: Tokenizer
) -> Corpus:
    """The tokenised corpus from the cache folder, where it is made first if it is not there.

    Args:
      fingerprint: stands for the documents' content; with the tokenizer it is the key in the cache.
      documents: lists of paragraphs, which are lists of sentences; read only to build.

    Raises:
      BertjaxError: the documents hold no sentence, or the cache cannot be written.
    """
    folder = cache / "corpora" / f"{name.replace('/', '-')}-{cache_key(FORMAT, fingerprint, tokenizer.to_json())}"
    if (corpus := _open(folder)) is None:
        with writing_in(cache):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as unfinished:
                built = Path(unfinished) / "corpus"
                _build(built, name, documents, tokenizer)
                # Another process may have been faster: what it made is the same, so it stays, unless it is damaged.
                if (corpus := _open(folder)) is None:
                    shutil.rmtree(folder, ignore_errors=True)
                    try:
                        os.rename(built, folder)
                    except OSError as error:
                        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # made by another in this moment
                            raise
                    corpus = _open(folder)
    if corpus is None:
        raise BertjaxError(f"the tokenised corpus in {folder} cannot be read; remove that folder")
    return corpus


def cache_key(*parts: object) -> str:
    """A short name for all that decides what a cached file holds."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def writing_in(cache: Path) -> Iterator[None]:
    """Turns a full disk or a missing permission into an error that names the cache and the setting."""
    try:
        yield
    except OSError as error:
        remedy = "free some space there or give another folder as data.cache"
        raise BertjaxError(f"cannot write to {error.filename or cache}: {error.strerror}; {remedy}") from error


def _build(folder: Path, name: str, documents: Iterable[list[list[str]]], tokenizer: Tokenizer) -> None:
    folder.mkdir()
    dtypes = {
        "ids": "<u2" if tokenizer.vocab_size <= 2**16 else "<u4",
        "sentences": "<i8",
        "paragraphs": "<i8",
    }
    digest, sizes = hashlib.sha256(), dict.fromkeys(dtypes, 0)
    with contextlib.ExitStack() as stack:
        files = {part: stack.enter_context(open(folder / f"{part}.bin", "wb")) for part in dtypes}

        def write(part: str, values: Iterable[int]) -> None:
            data = np.fromiter(values, dtypes[part]).tobytes()
            sizes[part] += files[part].write(data) // np.dtype(dtypes[part]).itemsize
            digest.update(part.encode() + data)

        tokens = sentences = 0
        write("sentences", [0])
        write("paragraphs", [0])
        documents = iter(documents)
        while some := list(itertools.islice(documents, _DOCUMENTS_AT_ONCE)):
            paragraphs = list(itertools.chain.from_iterable(some))
            encoded = tokenizer.encode_sentences(list(itertools.chain.from_iterable(paragraphs)))
            lengths = [len(ids) for ids in encoded]
            rest = iter(lengths)
            # A sentence without words can be neither read nor predicted; the textbook's splitting makes some.
            kept = [sum(length > 0 for length in itertools.islice(rest, len(paragraph))) for paragraph in paragraphs]
            ends = list(itertools.accumulate(filter(None, lengths), initial=tokens))
            paragraph_ends = list(itertools.accumulate(filter(None, kept), initial=sentences))
            write("ids", itertools.chain.from_iterable(encoded))
            write("sentences", ends[1:])
            write("paragraphs", paragraph_ends[1:])
            tokens, sentences = ends[-1], paragraph_ends[-1]
    if tokens == 0:
        raise BertjaxError(f"the corpus {name} is empty: its text holds no sentence; give one that does")
    info = {"name": name, "digest": digest.hexdigest(), "dtypes": dtypes, "sizes": sizes}
    (folder / "info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")


def _open(folder: Path) -> Corpus | None:
    """None where there is no corpus, or one that some accident has cut short."""
    try:
        info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
        arrays = {
            part: np.memmap(folder / f"{part}.bin", info["dtypes"][part], mode="r", shape=(size,))
            for part, size in info["sizes"].items()
        }
        return Corpus(info["name"], info["digest"], **arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
