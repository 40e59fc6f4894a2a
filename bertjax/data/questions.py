"""Questions about a text in which their answers stand: as the user's files have them, and which are held out."""

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bertjax.config import TaskConfig
from bertjax.data.examples import check_columns, columns_of, digest_of, item_of, read_records
from bertjax.data.sources.lines import BadError
from bertjax.data.sources.records import Place, as_text, in_field
from bertjax.errors import BertjaxError

Records = Iterator[tuple[Place, Any]]


class Answer(NamedTuple):
    """An answer to a question."""

    text: str
    start: int  # its first character in the context

    @property
    def end(self) -> int:
        """The character after its last one."""
        return self.start + len(self.text)


class Question(NamedTuple):
    """A question, and all its right answers, as a file has them; none where the context answers it not."""

    question: str
    context: str
    answers: tuple[Answer, ...]
    place: Place
    id: str | None = None
    group: str | None = None  # what it stays together with, beside others about its context

    @property
    def key(self) -> bytes:
        """Thirty-two bytes of what it says, those of its context first: so questions about one are neighbours."""
        answers = itertools.chain.from_iterable((answer.text, str(answer.start)) for answer in self.answers)
        return digest_of(self.context) + digest_of(self.id, self.question, self.group, *answers)

    @property
    def called(self) -> str:
        """What complaints call it."""
        return str(self.place) if self.id is None else f"{self.place} (id {self.id})"


class Spans(NamedTuple):
    """How answers are looked for."""

    stride: int = TaskConfig.stride
    max_answer: int = TaskConfig.max_answer
    threshold: float | None = None  # by how much "none" must be ahead of the best answer; None: there is always one

    @property
    def num_outputs(self) -> int:
        """Numbers that a model tells of a token: how likely an answer begins there, and that it ends there."""
        return 2


def read_questions(
    task: TaskConfig, path: str, key: str, *, labelled: bool = True
) -> Iterator[tuple[dict[str, Any], Question]]:
    """Yields the questions of files, in their order there, each with its record.

    A file is SQuAD's own JSON, or has a record for each question: in the column of task.label the texts of its answers
    and their first characters, as {"text": [...], "answer_start": [...]}; in a table that is JSON.

    Args:
      path: as `find_files` takes it.
      key: the option that gave the path.
      labelled: whether answers are needed. Without them none is read.

    Raises:
      BertjaxError: a file or a record cannot be read, lacks a column, or its context has not the answer where it is
        said to be.
    """
    needed = columns_of(task, labelled=labelled)
    try:
        for place, record in _flat(read_records(path, {}, key, task.columns)):
            check_columns(place, record, needed)
            (question, context), id = item_of(task, place, record), record.get("id")
            assert context is not None
            read = Question(question, context, (), place, None if id is None else str(id))
            if labelled:
                group = None if task.group is None else str(in_field(record, task.group))
                read = read._replace(answers=_answers(task, read, in_field(record, task.label)), group=group)
            yield record, read
    except BadError as error:
        raise BertjaxError(f"{error}; mend it, or leave it out") from None


def _flat(records: Records) -> Records:
    """Yields records of questions; SQuAD's own files, of which each is one record, are taken apart."""
    for place, record in records:
        if isinstance(record, dict) and isinstance(record.get("data"), list) and "question" not in record:
            yield from _of_squad(place, record["data"])
        else:
            yield place, record


def _of_squad(file: Place, articles: list[Any]) -> Records:
    number = itertools.count(1)
    for article in articles:
        for paragraph in _parts(file, article, "paragraphs"):
            for asked in _parts(file, paragraph, "qas"):
                place, asked = Place(file.part, "question", next(number)), asked if isinstance(asked, dict) else {}
                record = {"id": asked.get("id"), "title": article.get("title"), "context": paragraph.get("context")}
                record |= {key: asked[key] for key in ("question", "answers") if key in asked}
                if asked.get("is_impossible") is True and asked.get("answers"):
                    raise BadError(f"{place} (id {asked.get('id')}) has answers, and says is_impossible", "answers")
                yield place, record


def _parts(file: Place, whole: Any, name: str) -> list[Any]:
    parts = whole.get(name) if isinstance(whole, dict) else None
    if not isinstance(parts, list):
        raise BadError(f"{file.part.file} has something in its data without a list of {name!r}", f"no {name}")
    return parts


def _answers(task: TaskConfig, question: Question, value: Any) -> tuple[Answer, ...]:
    """Returns the answers in a field. Raises BadError where there are none such, or the context has others there."""
    column = f"in {task.label!r} (task.label)"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadError(f"{question.called} has no JSON {column} ({error})", "no JSON") from None
    if isinstance(value, dict):
        texts, starts = (value.get(name) for name in ("text", "answer_start"))
        value = None
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            value = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BadError(
            f'{question.called} has no answers {column}, as in {{"text": ["Rome"], "answer_start": [12]}}', "answers"
        )
    return tuple(
        _checked(question, as_text(one.get("text"), "text", "of answers"), one.get("answer_start")) for one in value
    )


def _checked(question: Question, text: str | BadError, start: Any) -> Answer:
    if isinstance(text, BadError):
        raise BadError(f"{question.called}: an answer {text}", text.reason)
    if not text.strip():
        raise BadError(f"{question.called} has an empty answer, and one without has none", "empty")
    if isinstance(start, bool) or not isinstance(start, int) or start < 0:
        raise BadError(f"{question.called} has answer_start={start!r}, which is no character's number", "start")
    if (there := question.context[start : start + len(text)]) != text:
        at = question.context.find(text)
        other = f"; it is at {at:,}" if at >= 0 else ", nor anywhere else"
        raise BadError(
            f"{question.called} has the answer {_short(text)} at answer_start={start}, where its context has "
            f"{_short(there)}{other}",
            "start",
        )
    return Answer(text, start)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def sorted_questions(task: TaskConfig, path: str, key: str) -> list[Question]:
    """Returns the questions of files with their answers, in an order that the files' does not change.

    Raises:
      BertjaxError: there is none; or as of `read_questions`.
    """
    questions = [question for _, question in read_questions(task, path, key)]
    if not questions:
        raise BertjaxError(f"{path} has no questions; give {key} some")
    return sorted(questions, key=lambda question: question.key)


def split_questions(questions: Sequence[Question], share: float, seed: int) -> tuple[list[Question], list[Question]]:
    """Returns the questions to learn from and those to hold out, the share of all, at random.

    Those about one context stay on one side; where questions have groups, those of one group.

    Args:
      questions: sorted.
      seed: another one, another split.
    """

    @functools.cache
    def of(together: str) -> bytes:  # groups in a random order, which that of the questions does not change
        return digest_of(str(seed), together)

    groups: dict[bytes, list[Question]] = {}
    for one in questions:
        groups.setdefault(of(one.context if one.group is None else one.group), []).append(one)
    left, held_out = round(share * len(questions)), set[int]()
    for key in sorted(groups):
        if len(groups[key]) <= left:
            held_out.update(map(id, groups[key]))
            left -= len(groups[key])
    return [one for one in questions if id(one) not in held_out], [one for one in questions if id(one) in held_out]
