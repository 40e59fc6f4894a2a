"""The tokenised corpus on disk: ids, sentence and paragraph offsets; built once, memory-mapped afterwards."""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertjax.data.cache import cache_key, read_or_build
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

FORMAT = 1  # part of every key: after a change of layout the cache builds anew instead of misreading
_ID_DTYPES = ("<u2", "<u4")
_PARAGRAPHS_AT_ONCE = 1024


class Corpus(NamedTuple):
    """A split, tokenised: sentence i is `ids[sentences[i]:sentences[i + 1]]`, paragraphs likewise in sentences."""

    name: str
    digest: str  # SHA-256 of the arrays' own
    ids: np.ndarray  # [tokens], uint16 or uint32
    sentences: np.ndarray  # [sentences + 1], int64
    paragraphs: np.ndarray  # [paragraphs + 1], int64
    folder: Path | None = None  # where it is, if it is on disk: what is derived from it is stored there too


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
    return read_or_build(folder, _open, lambda built: _build(built, name, documents, tokenizer))


def _build(folder: Path, name: str, documents: Iterable[list[list[str]]], tokenizer: Tokenizer) -> None:
    dtypes = {
        "ids": _ID_DTYPES[tokenizer.vocab_size > 2**16],
        "sentences": "<i8",
        "paragraphs": "<i8",
    }
    digests, sizes = {part: hashlib.sha256() for part in dtypes}, dict.fromkeys(dtypes, 0)
    with contextlib.ExitStack() as stack:
        files = {part: stack.enter_context(open(folder / f"{part}.bin", "wb")) for part in dtypes}

        def write(part: str, values: Iterable[int]) -> None:
            data = np.fromiter(values, dtypes[part]).tobytes()
            sizes[part] += files[part].write(data) // np.dtype(dtypes[part]).itemsize
            digests[part].update(data)

        tokens = sentences = 0
        write("sentences", [0])
        write("paragraphs", [0])
        all_paragraphs = itertools.chain.from_iterable(documents)
        while paragraphs := list(itertools.islice(all_paragraphs, _PARAGRAPHS_AT_ONCE)):
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
    digest = hashlib.sha256(b"".join(digests[part].digest() for part in dtypes)).hexdigest()
    info = {"name": name, "digest": digest, "dtypes": dtypes, "sizes": sizes}
    (folder / "info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")


def _open(folder: Path) -> Corpus | None:
    """None where there is no corpus, or one whose info.json does not fit its files."""
    try:
        info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
        files = {part: folder / f"{part}.bin" for part in ("ids", "sentences", "paragraphs")}
        dtypes = {"ids": info["dtypes"]["ids"], "sentences": "<i8", "paragraphs": "<i8"}
        bytes_of_parts = {part: info["sizes"][part] * np.dtype(dtypes[part]).itemsize for part in files}
        if dtypes["ids"] not in _ID_DTYPES or bytes_of_parts != {part: files[part].stat().st_size for part in files}:
            return None
        arrays = {part: np.memmap(file, dtypes[part], mode="r") for part, file in files.items()}
        return Corpus(str(info["name"]), str(info["digest"]), **arrays, folder=folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
