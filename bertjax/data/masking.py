"""Which words are to be predicted, and what stands in their place."""

import functools

import numpy as np

from bertjax.data.random import random_below, random_bits
from bertjax.data.tokenizer import Vocabulary

# What a random number is for: each its own stream, far enough apart for any row; pairs have those below.
_CHOICE, _FATE, _WORD = 1 << 20, 2 << 20, 3 << 20


def num_to_predict(words: np.ndarray, rate: float) -> np.ndarray:
    """Of so many words each, `rate` and at least one, if there is one."""
    return np.minimum(np.maximum(np.rint(rate * words), 1), words).astype(np.int64)


@functools.lru_cache(maxsize=8)
def words(vocabulary: Vocabulary) -> np.ndarray:
    """The ids of all tokens that are not special."""
    ids = np.setdiff1d(np.arange(vocabulary.size), vocabulary[1:])
    ids.flags.writeable = False
    return ids


def mask_tokens(
    tokens_bt: np.ndarray,
    present_bt: np.ndarray,
    keys_b: np.ndarray,
    *,
    rate: float,
    predict_unk: bool,
    vocabulary: Vocabulary,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Chooses what to predict and hides it (Devlin et al. 2019, section 3.1, task 1).

    Of a row's words, `rate` and at least one are chosen; 80% of them become <mask>, 10% a random word, 10% stay.

    Returns:
      tokens after masking [b, t]; positions, labels and weights of the predictions [b, p], weight 0 where a row has
      fewer than p.
    """
    t = tokens_bt.shape[1]
    num_predictions = max(1, round(rate * t))
    words_w = words(vocabulary)
    may_be_chosen_v = np.zeros(vocabulary.size, bool)
    may_be_chosen_v[words_w] = True
    may_be_chosen_v[vocabulary.unk] = predict_unk
    is_word_bt = may_be_chosen_v[tokens_bt] & present_bt
    chosen_b = num_to_predict(np.count_nonzero(is_word_bt, axis=1), rate)
    is_real_bp = np.arange(num_predictions) < chosen_b[:, None]

    # Sorting random numbers that carry their place in the low bits puts a random choice of words first.
    low = np.uint64((1 << t.bit_length()) - 1)
    order_bt = random_bits(keys_b[:, None], _CHOICE + np.arange(t))
    order_bt &= ~low
    order_bt |= np.arange(t, dtype=np.uint64)
    order_bt[~is_word_bt] = ~low
    order_bt.sort(axis=1)
    positions_bp = (order_bt[:, :num_predictions] & low).astype(np.int32) * is_real_bp
    labels_bp = np.take_along_axis(tokens_bt, positions_bp, axis=1) * is_real_bp

    fate_bp = random_below(10, random_bits(keys_b[:, None], _FATE + np.arange(num_predictions)))
    word_bits_bp = random_bits(keys_b[:, None], _WORD + np.arange(num_predictions))
    word_bp = words_w[random_below(len(words_w), word_bits_bp)]
    seen_bp = np.where(fate_bp < 8, vocabulary.mask, np.where(fate_bp == 8, word_bp, labels_bp))
    masked_bt = tokens_bt.copy()
    # An empty prediction stands at position 0, on <cls>, and leaves it as it is.
    np.put_along_axis(masked_bt, positions_bp, np.where(is_real_bp, seen_bp, tokens_bt[:, :1]), axis=1)
    return masked_bt, positions_bp, labels_bp, is_real_bp.astype(np.float32)
