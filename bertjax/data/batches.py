"""Batches as a pure function of (corpus, settings, seed, step): pairs of sentences, laid out and masked.

Every random choice is a hash of the seed, the example's number and what is chosen. So nothing is kept between
steps, any example can be made alone, and it is the same whatever the batch size and the number of devices.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from bertjax.data.corpus import Corpus
from bertjax.data.tokenizer import CLS, MASK, NUM_SPECIAL, PAD, SEP, UNK
from bertjax.errors import BertjaxError

Field = Any  # numpy's array on the host, jax's on the devices


class Batch(NamedTuple):
    """b rows, t tokens a row, p predictions a row, k sequences a row."""

    tokens_bt: Field  # int32, ids after masking
    segments_bt: Field  # int32, 0 = A, 1 = B
    positions_bt: Field  # int32, position inside its own sequence
    sequences_bt: Field  # int32, which of the row's sequences, 1..k; 0 = padding
    mlm_positions_bp: Field  # int32
    mlm_labels_bp: Field  # int32
    mlm_weights_bp: Field  # float32, 1 or 0
    cls_positions_bk: Field  # int32
    nsp_labels_bk: Field  # int32, is next = 1
    nsp_weights_bk: Field  # float32, 1 or 0


class PairBatches:
    """Adjacent sentences of a paragraph, or one and a stranger, one pair a row (k = 1).

    Every epoch takes each adjacent pair once, in a new order, with new strangers and new masks.

    Args:
      batch_size: rows (b).
      max_length: tokens a row (t).
      vocab_size: of the tokenizer, for random replacements.
      mlm_rate: share of a pair's words to predict.
      predict_unk: whether a word that is <unk> in the text may be one to predict.
      too_long: "truncate" from the longer side, or "drop" pairs, adjacent or with a stranger, that do not fit.
      seed: of every choice, below 2**32.

    Raises:
      BertjaxError: the corpus has no pair that fits.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        batch_size: int,
        max_length: int,
        vocab_size: int,
        mlm_rate: float,
        predict_unk: bool,
        too_long: Literal["truncate", "drop"],
        seed: int,
    ):
        self.batch_size = batch_size
        self._corpus, self._seed = corpus, seed
        self._max_length, self._words = max_length, max_length - 3  # <cls> and two <sep>
        self._vocab_size, self._mlm_rate, self._predict_unk = vocab_size, mlm_rate, predict_unk
        lengths = np.diff(corpus.sentences)
        is_first = np.ones(len(lengths), bool)
        is_first[corpus.paragraphs[1:] - 1] = False
        is_first &= (lengths + np.roll(lengths, -1) <= self._words) | (too_long == "truncate")
        self._firsts = np.flatnonzero(is_first)
        # Strangers come by rank of length: those that fit beside a given sentence are then a prefix.
        self._by_length = np.argsort(lengths, kind="stable")
        self._rank = np.empty_like(self._by_length)
        self._rank[self._by_length] = np.arange(len(lengths))
        limits = np.arange(self._words + 1) if too_long == "drop" else np.full(self._words + 1, lengths.max())
        self._num_within = np.searchsorted(lengths[self._by_length], limits, side="right")
        if not len(self._firsts):
            raise BertjaxError(
                f"the corpus {corpus.name} has no two adjacent sentences that fit in data.max_length={max_length}; "
                "give more text or a greater length"
            )

    @property
    def num_pairs(self) -> int:
        """Pairs in an epoch."""
        return len(self._firsts)

    def batch_at(self, step: int) -> Batch:
        """The batch of a training step; epochs follow one another without a gap."""
        return self._batch(np.arange(step * self.batch_size, (step + 1) * self.batch_size))

    def first_epoch(self) -> Iterator[Batch]:
        """Every pair once, always the same way; the last batch is filled up with empty rows of weight 0."""
        for start in range(0, self.num_pairs, self.batch_size):
            yield self._batch(np.arange(start, start + self.batch_size), end=self.num_pairs)

    def _batch(self, numbers_b: np.ndarray, end: int | None = None) -> Batch:
        """The examples of these numbers; those from `end` on are empty rows."""
        ids, sentences = self._corpus.ids, self._corpus.sentences
        keys_b = random_bits(self._seed, numbers_b)
        first_b, second_b, is_next_b = self._draw_pairs(numbers_b, keys_b)
        len_a_b, len_b_b = truncate(self._length(first_b), self._length(second_b), self._words)
        real_b = np.full(len(numbers_b), True) if end is None else numbers_b < end
        tokens_bt, segments_bt, present_bt = lay_out(
            ids, sentences[first_b], len_a_b, sentences[second_b], len_b_b, max_length=self._max_length
        )
        present_bt &= real_b[:, None]
        tokens_bt, mlm_positions_bp, mlm_labels_bp, mlm_weights_bp = mask_tokens(
            tokens_bt,
            present_bt,
            keys_b,
            rate=self._mlm_rate,
            predict_unk=self._predict_unk,
            vocab_size=self._vocab_size,
        )
        return Batch(
            tokens_bt=tokens_bt,
            segments_bt=segments_bt,
            positions_bt=np.arange(self._max_length, dtype=np.int32) * present_bt,
            sequences_bt=present_bt.astype(np.int32),
            mlm_positions_bp=mlm_positions_bp,
            mlm_labels_bp=mlm_labels_bp,
            mlm_weights_bp=mlm_weights_bp,
            cls_positions_bk=np.zeros((len(numbers_b), 1), np.int32),
            nsp_labels_bk=is_next_b.astype(np.int32)[:, None],
            nsp_weights_bk=real_b.astype(np.float32)[:, None],
        )

    def _length(self, sentence_b: np.ndarray) -> np.ndarray:
        return self._corpus.sentences[sentence_b + 1] - self._corpus.sentences[sentence_b]

    def _draw_pairs(self, numbers_b: np.ndarray, keys_b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First sentence, second sentence, and whether the second really is the next one."""
        epoch_b, index_b = np.divmod(numbers_b, self.num_pairs)
        first_b = self._firsts[shuffled(index_b, self.num_pairs, random_bits(self._seed, epoch_b, _SHUFFLE))]
        next_b = first_b + 1
        room_b = self._words - self._length(first_b)
        strangers_b = self._num_within[np.maximum(room_b, 0)] - 1  # all that fit but the next sentence itself
        rank_b = random_below(strangers_b, random_bits(keys_b, _STRANGER))
        rank_b += rank_b >= self._rank[next_b]
        is_next_b = (random_bits(keys_b, _IS_NEXT) >> np.uint64(63) == 1) | (strangers_b == 0)
        return first_b, np.where(is_next_b, next_b, self._by_length[rank_b % len(self._rank)]), is_next_b


def truncate(len_a_b: Any, len_b_b: Any, room: int) -> tuple[Any, Any]:
    """Lengths after words are taken from the longer side, one by one, until both fit in `room` together."""
    len_a_b = np.minimum(len_a_b, np.maximum(room - len_b_b, (room + 1) // 2))
    return len_a_b, np.minimum(len_b_b, room - len_a_b)


def lay_out(
    ids: np.ndarray,
    start_a_b: np.ndarray,
    len_a_b: np.ndarray,
    start_b_b: np.ndarray,
    len_b_b: np.ndarray,
    *,
    max_length: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`<cls> A <sep> B <sep>` and padding: tokens and segments (int32), and where no padding is (bool), all [b, t]."""
    place_t = np.arange(max_length)
    end_a_b1, end_b_b1 = (len_a_b + 1)[:, None], (len_a_b + len_b_b + 2)[:, None]  # where the two <sep> stand
    in_b_bt = (place_t > end_a_b1) & (place_t < end_b_b1)
    is_word_bt = ((place_t > 0) & (place_t < end_a_b1)) | in_b_bt
    source_bt = place_t + np.where(in_b_bt, start_b_b[:, None] - end_a_b1, start_a_b[:, None]) - 1
    tokens_bt = np.where(is_word_bt, ids[source_bt * is_word_bt], PAD).astype(np.int32)
    tokens_bt[:, 0] = CLS
    np.put_along_axis(tokens_bt, end_a_b1, SEP, axis=1)
    np.put_along_axis(tokens_bt, end_b_b1, SEP, axis=1)
    present_bt = place_t <= end_b_b1
    return tokens_bt, (present_bt & (place_t > end_a_b1)).astype(np.int32), present_bt


def mask_tokens(
    tokens_bt: np.ndarray,
    present_bt: np.ndarray,
    keys_b: np.ndarray,
    *,
    rate: float,
    predict_unk: bool,
    vocab_size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Chooses what to predict and hides it (Devlin et al. 2019, section 3.1, task 1).

    Of a row's words, `rate` and at least one are chosen; 80% of them become <mask>, 10% a random word, 10% stay.

    Returns:
      tokens after masking [b, t]; positions, labels and weights of the predictions [b, p], weight 0 where a row has
      fewer than p.
    """
    t = tokens_bt.shape[1]
    num_predictions = max(1, round(rate * t))
    is_word_bt = present_bt & ((tokens_bt >= NUM_SPECIAL) | ((tokens_bt == UNK) & predict_unk))
    words_b = is_word_bt.sum(axis=1)
    chosen_b = np.minimum(np.clip(np.rint(rate * words_b), 1, num_predictions), words_b)
    weights_bp = (np.arange(num_predictions) < chosen_b[:, None]).astype(np.float32)

    # Sorting random numbers that carry their place in the low bits puts a random choice of words first.
    low = np.uint64((1 << t.bit_length()) - 1)
    order_bt = (random_bits(keys_b[:, None], _CHOICE + np.arange(t)) & ~low) | np.arange(t, dtype=np.uint64)
    order_bt = np.sort(np.where(is_word_bt, order_bt, ~low), axis=1)
    positions_bp = (order_bt[:, :num_predictions] & low).astype(np.int32) * (weights_bp > 0)
    labels_bp = np.take_along_axis(tokens_bt, positions_bp, axis=1) * (weights_bp > 0)

    fate_bp = random_below(10, random_bits(keys_b[:, None], _FATE + np.arange(num_predictions)))
    word_bits_bp = random_bits(keys_b[:, None], _WORD + np.arange(num_predictions))
    word_bp = NUM_SPECIAL + random_below(vocab_size - NUM_SPECIAL, word_bits_bp)
    seen_bp = np.where(fate_bp < 8, MASK, np.where(fate_bp == 8, word_bp, labels_bp))
    masked_bt = tokens_bt.copy()
    # An empty prediction stands at position 0, on <cls>, and leaves it as it is.
    np.put_along_axis(masked_bt, positions_bp, np.where(weights_bp > 0, seen_bp, tokens_bt[:, :1]), axis=1)
    return masked_bt, positions_bp, labels_bp, weights_bp


# What a random number is for: each its own stream, far enough apart for any row.
_SHUFFLE, _IS_NEXT, _STRANGER = 0, 1, 2
_CHOICE, _FATE, _WORD = 1 << 20, 2 << 20, 3 << 20


def random_bits(key: int | np.ndarray, *words: int | np.ndarray) -> np.ndarray:
    """64 random bits for each key and words, broadcast together: SplitMix64 (Steele, Lea, Flood 2014), chained."""
    bits: np.ndarray = np.asarray(key, np.uint64)
    for word in words:
        # Overflow is meant, and numpy warns of it for scalars only: at least one dimension.
        bits = bits + np.atleast_1d(np.asarray(word, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return bits


def random_below(end: int | np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Random integers in [0, end), int64, from 64 random bits each; `end` is below 2**32."""
    return (((bits >> np.uint64(32)) * np.asarray(end, np.uint64)) >> np.uint64(32)).astype(np.int64)


def shuffled(index_b: np.ndarray, size: int, key_b: np.ndarray) -> np.ndarray:
    """Where a random permutation of range(size), one for each key, takes each index; no table is made.

    A Feistel network over the next power of two, walked until it is back in range (Black and Rogaway 2002).
    """
    bits = max(2, (size - 1).bit_length())
    right_bits = np.uint64(bits // 2)
    right_mask = (np.uint64(1) << right_bits) - np.uint64(1)
    left_mask = (np.uint64(1) << (np.uint64(bits) - right_bits)) - np.uint64(1)
    at_b, outside_b = index_b.astype(np.uint64), np.full(len(index_b), True)
    while outside_b.any():
        left, right, key = at_b[outside_b] >> right_bits, at_b[outside_b] & right_mask, key_b[outside_b]
        for turn in range(3):
            left ^= random_bits(key, 2 * turn, right) & left_mask
            right ^= random_bits(key, 2 * turn + 1, left) & right_mask
        at_b[outside_b] = (left << right_bits) | right
        outside_b = at_b >= size
    return at_b.astype(np.int64)
