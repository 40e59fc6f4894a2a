"""The best span of a context's windows, held to a search of all of them."""

import itertools
import math

import numpy as np

from bertjax.data.windows import ReadQuestion, Window
from bertjax.inference.spans import find_span


def test_the_best_span_is_found_in_whichever_window_it_is() -> None:
    rng = np.random.default_rng(0)
    for most in (1, 3, 50):
        windows = [
            Window(np.zeros(3 + size + 1, np.int32), 3, 3, first, size) for first, size in ((0, 9), (4, 9), (8, 5))
        ]
        spans_c2 = np.cumsum(rng.integers(1, 4, (13, 2)).ravel()).reshape(13, 2).astype(np.int32)
        logits = [rng.normal(size=(len(window.ids), 2)).astype(np.float32) for window in windows]
        best, nones = (-math.inf, 0, 0, 0.0), []
        for window, logits_t2 in zip(windows, logits, strict=True):
            of_all = np.exp(logits_t2.astype(np.float64)) / np.exp(logits_t2.astype(np.float64)).sum(0)
            nones.append((float(logits_t2[0].astype(np.float64).sum()), of_all[0].prod()))
            for start, end in itertools.product(range(window.size), repeat=2):
                if start <= end < start + most:
                    places = [window.place + start, window.place + end]
                    score = float(logits_t2[places, [0, 1]].astype(np.float64).sum())
                    if score > best[0]:
                        probability = of_all[places, [0, 1]].prod()
                        best = score, window.first + start, window.first + end, probability
        found = find_span(ReadQuestion(windows, spans_c2, False), logits, max_answer=most)
        assert (found.start, found.end) == (spans_c2[best[1], 0], spans_c2[best[2], 1])
        np.testing.assert_allclose((found.score, found.probability), (best[0], best[3]))
        np.testing.assert_allclose((found.none_score, found.none_probability), min(nones))
        assert found.is_none(found.margin - 0.1) and not found.is_none(found.margin) and not found.is_none(None)


def test_a_context_without_tokens_has_no_answer() -> None:
    read = ReadQuestion([Window(np.zeros(4, np.int32), 3, 3, 0, 0)], np.zeros((0, 2), np.int32), False)
    found = find_span(read, [np.zeros((4, 2), np.float32)], max_answer=30)
    assert found.is_none(None) and found.is_none(1e9) and found.score == -math.inf
