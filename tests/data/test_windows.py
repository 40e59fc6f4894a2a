"""Questions as a model reads them: every token of a context in a window, and each answer where its characters are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data.questions import Answer, Question
from bertjax.data.sources.lines import Part
from bertjax.data.sources.records import Place
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.template import A, B, Frame, Template
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.data.windows import NONE, AnswerExamples, make_windows, read_windows, tokens_of
from bertjax.errors import BertjaxError

VOCABULARY = [*BERTS_SPECIAL_TOKENS, "rome", "in", "2", "##004", "japan", "##ese", "cafe", ",", "a", "b", "c", "##b"]
PIECES = Tokenizer.from_vocab(
    {token: number for number, token in enumerate(VOCABULARY)}, Rules("wordpiece", special=BERTS_SPECIAL_TOKENS)
)
WORDS = Tokenizer.train([""], min_frequency=1)


def asked(question: str, context: str, *answers: str) -> Question:
    places = tuple(Answer(text, context.index(text)) for text in answers)
    return Question(question, context, places, Place(Part("a.json"), "question", 3), "q3")


def windows(
    *questions: Question, tokenizer: Tokenizer = PIECES, max_length: int = 12, stride: int = 4
) -> AnswerExamples:
    return make_windows(questions, PIECES, max_length=max_length, stride=stride, name="made")


@pytest.mark.parametrize(
    "context, answer, read",
    [
        ("In Rome, in Rome", "Rome", "Rome"),
        ("In  ROME,", "ROME", "ROME"),
        ("2004 a", "2004", "2004"),
        ("the cafe\u0301, a", "cafe\u0301", "cafe\u0301"),  # the accent is no part of the token
        ("a\u200b b", "a\u200b b", "a\u200b b"),
        ("Zürich a", "Zürich", "Zürich"),  # unknown, but there
        (" a b ", " a b ", "a b"),
    ],
)
def test_an_answers_characters_are_those_of_its_tokens(context: str, answer: str, read: str) -> None:
    examples = windows(asked("a", context, answer))
    (one,) = examples.read
    first, last = tokens_of(Answer(answer, context.index(answer)), one.spans_c2)
    assert context[one.spans_c2[first, 0] : one.spans_c2[last, 1]] == read
    window = one.windows[0]
    assert examples.answers_n2.tolist() == [[window.place + first, window.place + last]]


@given(st.data())
def test_windows_have_each_token_and_an_answer_as_a_whole_or_none(data: Any) -> None:
    words = data.draw(st.lists(st.sampled_from("a b c rome 2004 Zürich".split()), max_size=30))
    question = " ".join(data.draw(st.lists(st.sampled_from("abc"), max_size=12)))
    first, last = sorted(data.draw(st.tuples(*2 * [st.integers(0, max(0, len(words) - 1))])))
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    answers = (Answer(" ".join(words[first : last + 1]), int(starts[first])),) if words else ()
    max_length, stride = data.draw(st.integers(5, 24)), data.draw(st.integers(1, 24))
    one = Question(question, " ".join(words), answers, Place(Part("a"), "question", 1))
    examples = windows(one, max_length=max_length, stride=stride)
    (ids, spans), (asked_ids, _) = PIECES.encode_spans([one.context, one.question])
    read = examples.read[0]
    seen = dict[int, int]()
    for number, window in enumerate(read.windows):
        assert len(window.ids) <= max_length and window.place == window.len_a
        some = window.ids[window.place : window.place + window.size].tolist()
        kept = window.ids[1 : window.len_a - 1].tolist()
        assert kept == asked_ids[: len(kept)] and (len(kept) == len(asked_ids)) != read.is_cut
        assert window.ids.tolist() == [2, *kept, 3, *some, 3]
        seen |= {window.first + at: token for at, token in enumerate(some)}
        place, end = examples.answers_n2[number].tolist()
        if (place, end) != NONE:
            begin, stop = (spans[window.first + at - window.place] for at in (place, end))
            assert one.context[begin[0] : stop[1]] == answers[0].text
    assert [seen[at] for at in range(len(ids))] == ids and len(seen) == len(ids)
    assert len({window.first for window in read.windows}) == len(read.windows) == len(examples.answers_n2)
    if answers:
        tokens = tokens_of(answers[0], read.spans_c2)
        fits = [w.first <= tokens[0] and tokens[1] < w.first + w.size for w in read.windows]
        assert fits == [tuple(places) != NONE for places in examples.answers_n2.tolist()]
        room = max_length - 3 - len(kept)
        assert any(fits) or tokens[1] - tokens[0] + 1 > room - min(stride, room) + 1


def test_words_and_other_templates_are_read_too() -> None:
    other = WORDS.with_template(Template(Frame((2, A, 3), 3), Frame((2, B, 3, 3, A, 3), 2)))
    (read,) = read_windows([("x y", "Mr  Fox ran")], other, max_length=20, stride=9)
    (window,) = read.windows
    assert window.ids.tolist() == [2, 1, 1, 1, 3, 3, 1, 1, 3] and (window.len_a, window.place) == (4, 1)
    assert read.spans_c2.tolist() == [[0, 2], [4, 7], [8, 11]]


def test_what_cannot_be_learned_as_it_stands_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    odd = [
        asked("a", "japanese rome", "jap"),
        asked("a", "b b b a a a a a a a b b b", "a a a a a a a"),
        asked("a " * 9, "a b", "b"),
    ]
    examples = windows(*odd)
    assert capsys.readouterr().out.splitlines() == [
        "NOTICE:   1 of made's answers begin or end inside a token: the whole token is learned; the first is "
        "question 3 of a.json (id q3) with 'jap'",
        "NOTICE:   1 of made's answers are in no window as a whole: they are learned as none; try a lower task.stride; "
        "the first is question 3 of a.json (id q3) with 'a a a a a a a'",
        "NOTICE:   1 of made's questions are not read to their end, as they take up half of data.max_length; the first "
        "is question 3 of a.json (id q3)",
    ]
    assert examples.answers_n2[0].tolist() == [3, 3] and not examples.answers_n2[1:-1].any()
    with pytest.raises(BertjaxError, match=r"question 3 of a.json \(id q3\) has the answer '\\u200b', of which the v"):
        windows(asked("a", "a \u200b", "\u200b"))
    with pytest.raises(BertjaxError, match="data.max_length=4 has no room for a question and a context; give more"):
        windows(asked("a", "a", "a"), max_length=4)
