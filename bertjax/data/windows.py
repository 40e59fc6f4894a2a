"""Questions as a model reads them: each with a window of its context after it, or with several that overlap.

Letters: n windows, m tokens in all, c tokens of a context.
"""

import hashlib
import logging
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bertjax.data.questions import Answer, Question
from bertjax.data.tokenizer.template import A, B
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

_logger = logging.getLogger(__name__)

_AT_ONCE = 8192  # questions that are split together
NONE = (0, 0)  # what is to be found where there is no answer: the first token, <cls>


class Window(NamedTuple):
    """A question and some tokens of its context, as the model reads them."""

    ids: np.ndarray  # int32, with special tokens
    len_a: int  # how many of them are segment A's
    place: int  # of the first one of the context among them
    first: int  # the number of that one among the context's
    size: int  # how many of the context's there are


class ReadQuestion(NamedTuple):
    """All windows of a question, which have each token of its context."""

    windows: list[Window]
    spans_c2: np.ndarray  # int32, where each token of the context begins and ends, in characters
    is_cut: bool  # whether the question's end is not read, as it takes up half of what there is room for


class AnswerExamples(NamedTuple):
    """n windows with the places of their answers, in an order that their files' does not change."""

    name: str
    digest: str
    ids: np.ndarray  # int32 [m], those of all, one after the other
    starts_n: np.ndarray  # where each begins in them, and at last where the last one ends
    len_a_n: np.ndarray  # of the first segment, special tokens included
    answers_n2: np.ndarray  # int32, the place in each of its answer's first token, and of its last; else NONE
    read: list[ReadQuestion]  # whose windows they are, one question's after another's

    @property
    def lengths_n(self) -> np.ndarray:
        """Number of tokens, special ones included."""
        return np.diff(self.starts_n)


def read_windows(
    items: Sequence[tuple[str, str]], tokenizer: Tokenizer, *, max_length: int, stride: int
) -> Iterator[ReadQuestion]:
    """Yields each question and its context as windows of at most `max_length` tokens, special ones included.

    Args:
      items: questions and contexts.
      stride: tokens from the beginning of one window to that of the next; where a window has fewer, so many.

    Raises:
      BertjaxError: beside special tokens there is no room for both.
    """
    room = max_length - tokenizer.template.pair.num_special
    if room < 2:
        raise BertjaxError(f"data.max_length={max_length} has no room for a question and a context; give more")
    for first in range(0, len(items), _AT_ONCE):
        some = items[first : first + _AT_ONCE]
        contexts = list(dict.fromkeys(context for _, context in some))
        located = dict(zip(contexts, map(_located, contexts, tokenizer.encode_spans(contexts)), strict=True))
        asked = tokenizer.encode_spans([question for question, _ in some])
        for (ids, _), (_, context) in zip(asked, some, strict=True):
            kept = tokenizer.template.shortened(ids, min(len(ids), room // 2))
            context_c, spans_c2 = located[context]
            windows = _windows(kept, context_c, tokenizer, room - len(kept), stride)
            yield ReadQuestion(windows, spans_c2, len(kept) < len(ids))


def _located(text: str, read: tuple[list[int], list[tuple[int, int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns a text's tokens, and where they begin and end without white space, and with the accents on their last.

    Tokenizers that take accents off leave those that are characters of their own outside of the tokens.
    """
    spans = [list(span) for span in read[1]]
    ends = [start for start, _ in read[1][1:]] + [len(text)]
    for span, end in zip(spans, ends, strict=False):
        while span[0] < span[1] and text[span[0]].isspace():
            span[0] += 1
        while span[1] < end and unicodedata.combining(text[span[1]]):
            span[1] += 1
    return np.array(read[0], np.int32), np.array(spans, np.int32).reshape(-1, 2)


def _windows(
    question: Sequence[int], context_c: np.ndarray, tokenizer: Tokenizer, room: int, stride: int
) -> list[Window]:
    frame = tokenizer.template.pair
    around = {A: np.array(question, np.int32)}
    windows = []
    for first in range(0, max(1, len(context_c)), min(stride, room)):
        some = context_c[first : first + room]
        parts = [some if place == B else around.get(place, np.array([place], np.int32)) for place in frame.places]
        lengths = [len(part) for part in parts]
        place = sum(lengths[: frame.places.index(B)])
        windows.append(Window(np.concatenate(parts), sum(lengths[: frame.num_first]), place, first, len(some)))
        if first + room >= len(context_c):
            break
    return windows


def tokens_of(answer: Answer, spans_c2: np.ndarray) -> tuple[int, int]:
    """Returns the numbers of the first and the last token with a character of an answer; the last is less if none has.

    Args:
      spans_c2: of the context.
    """
    first = int(np.searchsorted(spans_c2[:, 1], answer.start, "right"))
    return first, int(np.searchsorted(spans_c2[:, 0], answer.end, "left")) - 1


def place_of(tokens: tuple[int, int] | None, window: Window) -> tuple[int, int]:
    """Returns the places of an answer's first and last token in a window; NONE where it has not the whole answer."""
    if tokens is None or tokens[0] < window.first or tokens[1] >= window.first + window.size:
        return NONE
    return window.place + tokens[0] - window.first, window.place + tokens[1] - window.first


def make_windows(
    questions: Sequence[Question], tokenizer: Tokenizer, *, max_length: int, stride: int, name: str
) -> AnswerExamples:
    """Returns questions as a model learns them; of several answers the first one is to be found.

    A window without the whole answer has none. What cannot be learned as it stands is told.

    Args:
      max_length, stride: as of `read_windows`.
      name: what messages call them.

    Raises:
      BertjaxError: the vocabulary can read no character of an answer; or as of `read_windows`.
    """
    items = [(question.question, question.context) for question in questions]
    read = list(read_windows(items, tokenizer, max_length=max_length, stride=stride))
    answers = [_first_answer(question, one.spans_c2) for question, one in zip(questions, read, strict=True)]
    places = [place_of(tokens, window) for one, tokens in zip(read, answers, strict=True) for window in one.windows]
    _tell_of_odd(questions, read, answers, name)
    windows = [window for one in read for window in one.windows]
    return AnswerExamples(
        name,
        hashlib.blake2b(b"".join(question.key for question in questions), digest_size=16).hexdigest(),
        np.concatenate([window.ids for window in windows]),
        np.concatenate(([0], np.cumsum([len(window.ids) for window in windows]))).astype(np.int64),
        np.array([window.len_a for window in windows], np.int32),
        np.array(places, np.int32),
        read,
    )


def _first_answer(question: Question, spans_c2: np.ndarray) -> tuple[int, int] | None:
    if not question.answers:
        return None
    first, last = tokens_of(question.answers[0], spans_c2)
    if last < first:
        raise BertjaxError(
            f"{question.called} has the answer {question.answers[0].text!r}, of which the vocabulary can read no "
            "character; leave it out"
        )
    return first, last


def _tell_of_odd(
    questions: Sequence[Question],
    read: Sequence[ReadQuestion],
    answers: Sequence[tuple[int, int] | None],
    name: str,
) -> None:
    """Tells, with the first of each kind, how many answers are no whole tokens or in no window, and what is cut."""
    inside, nowhere = list[Question](), list[Question]()
    for question, one, tokens in zip(questions, read, answers, strict=True):
        if tokens is None:
            continue
        answer, (start, end) = question.answers[0], (one.spans_c2[tokens[0], 0], one.spans_c2[tokens[1], 1])
        if start < answer.start or end > answer.end:
            inside.append(question)
        if all(place_of(tokens, window) == NONE for window in one.windows):
            nowhere.append(question)
    cut = [question for question, one in zip(questions, read, strict=True) if one.is_cut]
    for some, what in (
        (inside, "answers begin or end inside a token: the whole token is learned"),
        (nowhere, "answers are in no window as a whole: they are learned as none; try a lower task.stride"),
        (cut, "questions are not read to their end, as they take up half of data.max_length"),
    ):
        if some:
            such = f" with {some[0].answers[0].text!r}" if some is not cut else ""
            _logger.info(f"NOTICE:   {len(some):,} of {name}'s {what}; the first is {some[0].called}{such}")
