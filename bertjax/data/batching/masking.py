"""Masking: which words are to be predicted, and what stands in their place."""

import functools
from typing import Literal

import numpy as np

from bertjax.data.batching.random import in_random_order, random_below, random_bits
from bertjax.data.batching.spans import LONGEST, some_spans
from bertjax.data.tokenizer.rules import Vocabulary

# What a random number is for: each its own stream, far enough apart for any row; sequences have those below.
_CHOICE, _FATE, _WORD, _LENGTH = 1 << 20, 2 << 20, 3 << 20, 4 << 20


def num_to_predict(words: np.ndarray, rate: float) -> np.ndarray:
    """Returns how many of so many words each are to be predicted: `rate`, and at least one if there is one."""
    return np.minimum(np.maximum(np.rint(rate * words), 1), words).astype(np.int64)


def most_to_predict(max_length: int, rate: float) -> int:
    """Returns how many predictions a sequence of so many tokens has room for."""
    return max(1, round(rate * max_length))


@functools.lru_cache(maxsize=8)
def words(vocabulary: Vocabulary) -> np.ndarray:
    """Returns the ids of all tokens that are not special."""
    ids = np.setdiff1d(np.arange(vocabulary.size), list(vocabulary.special))
    ids.flags.writeable = False
    return ids


@functools.lru_cache(maxsize=8)
def _continues(vocabulary: Vocabulary) -> np.ndarray:
    """Tells which tokens go on with the word of the token before, bool [vocabulary]."""
    continues_v = np.zeros(vocabulary.size, bool)
    continues_v[list(vocabulary.continuing)] = True
    continues_v.flags.writeable = False
    return continues_v


def mask_tokens(
    tokens_bt: np.ndarray,
    present_bt: np.ndarray,
    keys_b: np.ndarray,
    *,
    rate: float,
    num_predictions: int | None = None,
    unit: Literal["token", "word", "span"] = "token",
    predict_unk: bool,
    vocabulary: Vocabulary,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Chooses what to predict and hides it (Devlin et al. 2019, section 3.1, task 1).

    Of a row's tokens that are not special, `rate` and at least one are chosen; 80% of them become <mask>, 10% a random
    token, 10% stay. Units of more than one token are chosen as `some_spans` does, never more tokens than with "token".

    Args:
      tokens_bt, present_bt: ids, and where no padding is.
      keys_b: uint64, of each row's random choices.
      rate: share of the words.
      num_predictions: p, at least and by default as many as a row without special tokens has at this rate.
      unit: "token"; "word", all tokens of one or none, each with a fate of its own, as in Devlin et al.'s later code;
        "span" of up to 10 words, which share their fate (Joshi et al. 2020, "SpanBERT", section 3.1).
      predict_unk: whether <unk> in the text may be chosen.

    Returns:
      tokens after masking [b, t]; positions, labels and weights of the predictions [b, p], weight 0 where a row has
      fewer than p.
    """
    t, mask = tokens_bt.shape[1], vocabulary.mask
    assert mask is not None
    num_predictions = num_predictions or most_to_predict(t, rate)
    words_w = words(vocabulary)
    may_be_chosen_v = np.zeros(vocabulary.size, bool)
    may_be_chosen_v[words_w] = True
    may_be_chosen_v[vocabulary.unk] = predict_unk
    is_word_bt = may_be_chosen_v[tokens_bt] & present_bt
    chosen_b = num_to_predict(np.count_nonzero(is_word_bt, axis=1), rate)

    slot_p = np.arange(num_predictions)
    if unit == "token":
        is_real_bp = slot_p < chosen_b[:, None]
        positions_bp = in_random_order(keys_b, _CHOICE, is_word_bt, num_predictions) * is_real_bp
    else:
        begins_bt = is_word_bt & ~_continues(vocabulary)[tokens_bt]
        longest = 1 if unit == "word" else LONGEST
        span_bt = some_spans(is_word_bt, begins_bt, chosen_b, keys_b, longest, order=_CHOICE, length=_LENGTH)
        count_b = np.count_nonzero(span_bt, axis=1)
        is_real_bp = slot_p < count_b[:, None]
        positions_bp = np.zeros(is_real_bp.shape, np.int32)
        positions_bp[is_real_bp] = np.nonzero(span_bt)[1]
    labels_bp = np.take_along_axis(tokens_bt, positions_bp, axis=1) * is_real_bp

    fate_of_bp = np.take_along_axis(span_bt, positions_bp, axis=1) if unit == "span" else slot_p
    fate_bp = random_below(10, random_bits(keys_b[:, None], _FATE + fate_of_bp))
    word_bp = words_w[random_below(len(words_w), random_bits(keys_b[:, None], _WORD + slot_p))]
    seen_bp = np.where(fate_bp < 8, mask, np.where(fate_bp == 8, word_bp, labels_bp))
    masked_bt = tokens_bt.copy()
    # An empty prediction stands at position 0, on <cls>, and leaves it as it is.
    np.put_along_axis(masked_bt, positions_bp, np.where(is_real_bp, seen_bp, tokens_bt[:, :1]), axis=1)
    return masked_bt, positions_bp, labels_bp, is_real_bp.astype(np.float32)
