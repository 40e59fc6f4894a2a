"""Sequences of one segment or two, as places in the corpus, and how they are laid out as tokens."""

from typing import Any, NamedTuple

import numpy as np

from bertjax.data.tokenizer.rules import Vocabulary


class Sequences(NamedTuple):
    """n sequences: where the words of A and of B are in the corpus, and a key for all their other random choices."""

    keys_n: np.ndarray  # uint64
    start_a_n: np.ndarray
    len_a_n: np.ndarray
    start_b_n: np.ndarray
    len_b_n: np.ndarray  # 0 where there is no B
    is_next_n: np.ndarray  # bool, whether B is what follows A in the text

    @property
    def lengths_n(self) -> np.ndarray:
        """Number of tokens, <cls> and one or two <sep> included."""
        return self.len_a_n + self.len_b_n + self._special_n

    def shortened(self, max_length: int) -> "Sequences":
        """Returns the sequences, of which the longer ones lose words until they have max_length tokens."""
        len_a_n, len_b_n = truncate(self.len_a_n, self.len_b_n, max_length - self._special_n)
        return self._replace(len_a_n=len_a_n, len_b_n=len_b_n)

    def take(self, index: Any) -> "Sequences":
        """Returns some of the sequences, as numpy's indexing chooses them."""
        return Sequences(*(field_n[index] for field_n in self))

    @property
    def _special_n(self) -> np.ndarray:
        return 2 + (self.len_b_n > 0)


def truncate(len_a: Any, len_b: Any, room: Any) -> tuple[Any, Any]:
    """Returns the lengths after words are taken from the longer side, one by one, until both fit.

    Args:
      len_a, len_b: words; numbers or arrays, as is `room`.
      room: words of both together.
    """
    len_a = np.minimum(len_a, np.maximum(room - len_b, (room + 1) // 2))
    return len_a, np.minimum(len_b, room - len_a)


def lay_out(
    ids: np.ndarray,
    start_a_b: np.ndarray,
    len_a_b: np.ndarray,
    start_b_b: np.ndarray,
    len_b_b: np.ndarray,
    *,
    max_length: int,
    vocabulary: Vocabulary,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lays out `<cls> A <sep> B <sep>`, or `<cls> A <sep>` where B has no words, and padding.

    Padding is zeros, whatever its token: nothing looks at it.

    Args:
      ids: the corpus's.
      start_a_b, len_a_b, start_b_b, len_b_b: where the words of A and of B are in them.
      max_length: t.

    Returns:
      tokens and segments (int32), and where no padding is (bool), all [b, t].
    """
    place_t = np.arange(max_length)
    # Where the <sep> after A stands, and the one after B, the same where there is no B.
    end_a_b1, end_b_b1 = (len_a_b + 1)[:, None], (len_a_b + len_b_b + 1 + (len_b_b > 0))[:, None]
    in_b_bt = (place_t > end_a_b1) & (place_t < end_b_b1)
    is_word_bt = ((place_t > 0) & (place_t < end_a_b1)) | in_b_bt
    source_bt = place_t + np.where(in_b_bt, start_b_b[:, None] - end_a_b1, start_a_b[:, None]) - 1
    tokens_bt = np.where(is_word_bt, ids[source_bt * is_word_bt], 0).astype(np.int32)
    tokens_bt[:, 0] = vocabulary.cls
    np.put_along_axis(tokens_bt, end_a_b1, vocabulary.sep, axis=1)
    np.put_along_axis(tokens_bt, end_b_b1, vocabulary.sep, axis=1)
    present_bt = place_t <= end_b_b1
    return tokens_bt, (present_bt & (place_t > end_a_b1)).astype(np.int32), present_bt
