"""The endless stream of passages: as many consecutive sentences of a paragraph as fit, each drawn by its number."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.format import open_memmap, write_array_header_1_0

from bertjax.data.batching.random import random_bits, shuffled
from bertjax.data.batching.sequences import Sequences
from bertjax.data.corpus.corpus import Corpus, read_or_derive
from bertjax.errors import BertjaxError

_SPECIAL = 2  # <cls> and <sep>
_SENTENCES_AT_ONCE = 1 << 18
_SHUFFLE = 0  # what a random number is for; masks have others


class PassageStream:
    """Every epoch takes each passage once, in a new order, and so each sentence (Liu et al. 2019, "RoBERTa", 4.2).

    They are that paper's DOC-SENTENCES, with paragraphs for documents. A sentence that is too long stands alone.

    Args:
      max_length, too_long, seed: as for `Batches`.

    Raises:
      BertjaxError: the corpus has no sentence that fits, or its folder cannot be written.
    """

    num_special = _SPECIAL

    def __init__(self, corpus: Corpus, *, max_length: int, too_long: Literal["truncate", "drop"], seed: int):
        words, self._seed = max_length - _SPECIAL, seed
        build = partial(_build, corpus=corpus, words=words, too_long=too_long)
        self._passages = read_or_derive(corpus, f"passages-{words}-{too_long}", _read, build)

    @property
    def num_sequences(self) -> int:
        """Number of passages in an epoch."""
        return len(self._passages)

    def draw(self, numbers_n: np.ndarray) -> Sequences:
        """Returns the passages of these numbers, from 0 on; epochs follow one another without a gap."""
        epoch_n, index_n = np.divmod(numbers_n, self.num_sequences)
        place_n = shuffled(index_n, self.num_sequences, random_bits(self._seed, epoch_n, _SHUFFLE))
        start_n, len_n = self._passages[place_n].T
        none_n = np.zeros_like(len_n)
        return Sequences(random_bits(self._seed, numbers_n), start_n, len_n, none_n, none_n, none_n > 0)


def _read(folder: Path) -> np.ndarray | None:
    """Maps the passages; None where there are none, or some that an accident has cut short."""
    try:
        return np.asarray(open_memmap(folder / "passages.npy", mode="r"))
    except (OSError, ValueError):
        return None


def _build(folder: Path, corpus: Corpus, words: int, too_long: str) -> None:
    """Writes the first token and number of tokens of each passage, int64, in two passes, of which one counts."""
    count = sum(len(some) for some in _passages(corpus, words, too_long))
    if count == 0:
        raise BertjaxError(
            f"the corpus {corpus.name} has no sentence that fits in data.max_length={words + _SPECIAL}; "
            "give more text or a greater length"
        )
    with open(folder / "passages.npy", "wb") as file:
        write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (count, 2)})
        for some in _passages(corpus, words, too_long):
            file.write(some.astype("<i8").tobytes())


def _passages(corpus: Corpus, words: int, too_long: str) -> Iterator[np.ndarray]:
    """Yields some passages at once: the first token and the number of tokens of each, [n, 2]."""
    num_sentences = len(corpus.sentences) - 1
    at = 0  # the next passage's first sentence
    for start in range(0, num_sentences, _SENTENCES_AT_ONCE):
        number = np.arange(start, min(start + _SENTENCES_AT_ONCE, num_sentences))
        # A sentence has a word at least, so no passage goes further than so many.
        offsets = np.asarray(corpus.sentences[start : start + len(number) + words + 1])
        fitting = start + np.searchsorted(offsets, offsets[: len(number)] + words, side="right") - 1
        paragraph_ends = corpus.paragraphs[np.searchsorted(corpus.paragraphs, number, side="right")]
        # Where a passage would end that began at each sentence; they follow one another from one end to the next.
        ends = np.maximum(np.minimum(fitting, paragraph_ends), number + 1) - start
        end_of, firsts = ends.tolist(), []
        while at < start + len(number):
            firsts.append(at - start)
            at = start + end_of[at - start]
        first_n = np.array(firsts, np.int64)
        len_n = offsets[ends[first_n]] - offsets[first_n]
        kept_n = len_n <= words if too_long == "drop" else slice(None)
        yield np.stack([offsets[first_n], np.minimum(len_n, words)], axis=1)[kept_n]
