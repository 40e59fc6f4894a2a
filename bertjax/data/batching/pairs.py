"""The endless stream of pairs: adjacent sentences, in order or swapped, or one and a stranger, drawn by number."""

import bisect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap, write_array_header_1_0

from bertjax.data.batching.random import random_below, random_bits, shuffled
from bertjax.data.batching.sequences import Sequences, truncate
from bertjax.data.corpus.corpus import Corpus, read_or_derive
from bertjax.errors import BertjaxError

_SPECIAL = 3  # <cls> and two <sep>
_SENTENCES_AT_ONCE = 1 << 18
DRAWS = 10  # of a stranger, at most


class PairStream:
    """Every epoch takes each adjacent pair once, in a new order; what is done to half of them is drawn anew.

    Their second sentence is a stranger (NSP: Devlin et al. 2019, section 3.1, task 2), or both are swapped (SOP: Lan et
    al. 2020, "ALBERT", section 3.1). A stranger with the words of the next sentence is drawn anew, up to `DRAWS` times;
    then, as where nothing else fits, the next sentence stays.

    Args:
      max_length, too_long, seed: as for `Batches`.
      swapped: SOP, not NSP.

    Raises:
      BertjaxError: the corpus has no pair that fits, or its folder cannot be written.
    """

    num_special = _SPECIAL

    def __init__(
        self,
        corpus: Corpus,
        *,
        max_length: int,
        too_long: Literal["truncate", "drop"],
        seed: int,
        swapped: bool = False,
    ):
        self._max_length, self._words, self._seed, self._swapped = max_length, max_length - _SPECIAL, seed, swapped
        self._ids, self._sentences = np.asarray(corpus.ids), np.asarray(corpus.sentences)
        build = partial(_build, corpus=corpus, words=self._words, too_long=too_long)
        self._firsts, self._by_length = read_or_derive(corpus, f"pairs-{self._words}-{too_long}", _read, build)
        # Of the sentences by length, how many can stand in a room of so many words: the first ones.
        self._num_fitting = np.full(self._words + 1, len(self._by_length))
        if too_long == "drop" and not swapped:
            rooms = range(self._words + 1)
            self._num_fitting[:] = [bisect.bisect_right(self._by_length, room, key=self._length) for room in rooms]

    @property
    def num_sequences(self) -> int:
        """Number of pairs in an epoch."""
        return len(self._firsts)

    def draw(self, numbers_n: np.ndarray) -> Sequences:
        """Returns the pairs of these numbers, from 0 on; epochs follow one another without a gap."""
        keys_n = random_bits(self._seed, numbers_n)
        epoch_n, index_n = np.divmod(numbers_n, self.num_sequences)
        first_n = self._firsts[shuffled(index_n, self.num_sequences, random_bits(self._seed, epoch_n, _SHUFFLE))]
        is_next_n = ~to_be_changed(keys_n)
        if self._swapped:
            a_n, b_n = first_n + ~is_next_n, first_n + is_next_n
        else:
            a_n, b_n = first_n, self._next_or_stranger(first_n, is_next_n, keys_n)
            is_next_n = b_n == first_n + 1
        start_a_n, start_b_n = self._sentences[a_n], self._sentences[b_n]
        pairs = Sequences(keys_n, start_a_n, self._length(a_n), start_b_n, self._length(b_n), is_next_n)
        return pairs.shortened(self._max_length)

    def _next_or_stranger(self, first_n: np.ndarray, is_next_n: np.ndarray, keys_n: np.ndarray) -> np.ndarray:
        """Returns the second sentences: more of them the next ones than is asked for where no stranger is found."""
        second_n = first_n + 1
        fitting_n = self._num_fitting[np.maximum(self._words - self._length(first_n), 0)]
        at_m = np.flatnonzero(~is_next_n & (fitting_n > 1))
        bits_m = random_bits(keys_n[at_m], _STRANGER)
        for _ in range(DRAWS):
            # A stranger is any that fits but the next sentence, in whose stead the last of them is taken.
            next_m, fitting_m = first_n[at_m] + 1, fitting_n[at_m]
            stranger_m = self._by_length[random_below(fitting_m - 1, bits_m)]
            stranger_m = np.where(stranger_m == next_m, self._by_length[fitting_m - 1], stranger_m)
            same_m = self._look_the_same(first_n[at_m], next_m, stranger_m)
            second_n[at_m[~same_m]] = stranger_m[~same_m]
            if not same_m.any():
                break
            at_m, bits_m = at_m[same_m], random_bits(bits_m[same_m], _STRANGER)
        return second_n

    def _look_the_same(self, first_n: np.ndarray, one_n: np.ndarray, other_n: np.ndarray) -> np.ndarray:
        """Tells where two sentences have the same words, as far as they fit after the first one."""
        length_n, others_n = (
            truncate(self._length(first_n), self._length(second_n), self._words)[1] for second_n in (one_n, other_n)
        )
        same_n = length_n == others_n
        if len(at_m := np.flatnonzero(same_n)):
            length_m = length_n[at_m]
            begin_m = np.cumsum(length_m) - length_m
            words = np.arange(length_m.sum()) - np.repeat(begin_m, length_m)
            one, other = (
                self._ids[words + np.repeat(self._sentences[which_n[at_m]], length_m)] for which_n in (one_n, other_n)
            )
            same_n[at_m] = np.logical_and.reduceat(one == other, begin_m)
        return same_n

    def _length(self, sentence: Any) -> Any:
        return self._sentences[sentence + 1] - self._sentences[sentence]


# What a random number is for, below 1 << 20: masks have the streams from there on.
_SHUFFLE, _IS_NEXT, _STRANGER = 0, 1, 2


def to_be_changed(keys_n: np.ndarray) -> np.ndarray:
    """Tells which pairs, by their keys, are to have a stranger or to be swapped."""
    changed_n: np.ndarray = random_bits(keys_n, _IS_NEXT) >> np.uint64(63) == 0
    return changed_n


class _Tables(NamedTuple):
    """The tables that grow with the corpus, mapped from files."""

    firsts: np.ndarray  # the first sentence of every pair, int64
    by_length: np.ndarray  # all sentences, the shortest first, int64


def _read(folder: Path) -> _Tables | None:
    """Maps the tables; None where there are none, or some that an accident has cut short."""
    try:
        return _Tables(*(np.asarray(open_memmap(folder / f"{name}.npy", mode="r")) for name in _Tables._fields))
    except (OSError, ValueError):
        return None


def _build(folder: Path, corpus: Corpus, words: int, too_long: str) -> None:
    """Writes the tables in two passes: one counts, so that the other knows each length's place."""
    counts, num_firsts = np.zeros(words + 2, np.int64), 0
    for _, lengths, is_first in _chunks(corpus, words, too_long):
        counts += np.bincount(lengths, minlength=len(counts))
        num_firsts += int(is_first.sum())
    if num_firsts == 0:
        raise BertjaxError(
            f"the corpus {corpus.name} has no two adjacent sentences that fit in data.max_length={words + _SPECIAL}; "
            "give more text or a greater length"
        )
    with open(folder / "firsts.npy", "wb") as firsts, open(folder / "by_length.npy", "wb") as by_length:
        for file, size in ((firsts, num_firsts), (by_length, counts.sum())):
            write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (int(size),)})
        next_places = by_length.tell() + 8 * (np.cumsum(counts) - counts)
        for start, lengths, is_first in _chunks(corpus, words, too_long):
            firsts.write((start + np.flatnonzero(is_first)).astype("<i8").tobytes())
            counts = np.bincount(lengths, minlength=len(counts))
            sentences = start + np.argsort(lengths, kind="stable")
            for length, run in enumerate(np.split(sentences, np.cumsum(counts)[:-1])):
                by_length.seek(next_places[length])
                next_places[length] += by_length.write(run.astype("<i8").tobytes())


def _chunks(corpus: Corpus, words: int, too_long: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields, for some sentences at once, the first one's number, lengths up to words + 1, and which begin a pair."""
    num_sentences = len(corpus.sentences) - 1
    for start in range(0, num_sentences, _SENTENCES_AT_ONCE):
        end = min(start + _SENTENCES_AT_ONCE, num_sentences)
        lengths = np.diff(corpus.sentences[start : end + 2])  # of the sentence after them too, if there is one
        is_first = np.full(end - start, True)
        paragraph_ends = corpus.paragraphs[slice(*np.searchsorted(corpus.paragraphs, [start, end], side="right"))]
        is_first[paragraph_ends - start - 1] = False
        if too_long == "drop":
            is_first[: len(lengths) - 1] &= lengths[:-1] + lengths[1:] <= words
        yield start, np.minimum(lengths[: end - start], words + 1).astype(np.int32), is_first
