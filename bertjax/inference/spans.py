"""The best answer in windows of a context, by the logits of where answers begin and end.

Letters: t tokens of a window, c of them of the context.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from bertjax.data.windows import NONE, ReadQuestion


class FoundSpan(NamedTuple):
    """The best span of a context, and what there is for "no answer"."""

    start: int  # its characters, from one up to another
    end: int
    score: float  # the sum of its two logits; minus infinity where the context has no tokens
    probability: float  # that of its first token, times that of its last one, in the window that it is from
    none_score: float  # the sum of the two logits of the first token, in the window where it is least
    none_probability: float  # likewise

    @property
    def margin(self) -> float:
        """By how much "no answer" is ahead of it."""
        return self.none_score - self.score

    def is_none(self, threshold: float | None) -> bool:
        """Returns whether no answer is to be told, as "none" is ahead by more than a threshold."""
        return self.end == 0 or (threshold is not None and self.margin > threshold)


def find_span(read: ReadQuestion, logits: Sequence[np.ndarray], *, max_answer: int) -> FoundSpan:
    """Returns the span of a context with the greatest sum of logits, its first token's as start and its last one's.

    Args:
      logits: of each window, float32 [t, 2].
      max_answer: tokens that the span has at most.
    """
    best, none = (-math.inf, 0.0, 0, 0), (math.inf, 0.0)
    for window, logits_t2 in zip(read.windows, logits, strict=True):
        logits_t2 = logits_t2.astype(np.float64)
        total = float(logsumexp(logits_t2, axis=0).sum())
        of_none = float(logits_t2[NONE[0], 0] + logits_t2[NONE[1], 1])
        if of_none < none[0]:
            none = of_none, math.exp(of_none - total)
        score, first, last = _best(logits_t2[window.place : window.place + window.size], max_answer)
        if score > best[0]:
            best = score, math.exp(score - total), window.first + first, window.first + last
    start, end = (int(read.spans_c2[best[2], 0]), int(read.spans_c2[best[3], 1])) if best[0] > -math.inf else (0, 0)
    return FoundSpan(start, end, *best[:2], *none)


def _best(logits_c2: np.ndarray, max_answer: int) -> tuple[float, int, int]:
    """Returns the greatest sum, and the tokens that it is of; of equal ones the shortest, and then the first."""
    best = (-math.inf, 0, 0)
    for more in range(min(max_answer, len(logits_c2))):
        sums = logits_c2[: len(logits_c2) - more, 0] + logits_c2[more:, 1]
        first = int(sums.argmax())
        if sums[first] > best[0]:
            best = float(sums[first]), first, first + more
    return best
