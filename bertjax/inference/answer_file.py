"""A file of questions to one with an answer beside each."""

import contextlib
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from bertjax.config import TaskConfig
from bertjax.data.questions import Question, read_questions
from bertjax.errors import BertjaxError
from bertjax.inference.answerer import Answerer, FoundAnswer
from bertjax.inference.record_files import RECORDS, TABLES, record_writer

FORMATS = (".json", *TABLES, *RECORDS)
_AT_ONCE = 1024  # questions that are answered together
_DIGITS = 6

Write = Callable[[dict[str, Any], Question, FoundAnswer], None]


def answer_file(answerer: Answerer, task: TaskConfig, source: str, file: IO[Any], out: Path) -> int:
    """Writes the answers to questions; returns how many there were.

    As JSON that is the text of each answer by the question's id, empty where there is none, as SQuAD's evaluation reads
    it. Else a record has its columns, and `prediction`, `answer_start` and `probability`.

    Args:
      task: names the columns of questions and contexts.
      source: files of questions, as `read_questions` takes them.
      file: what is written to, bytes where the format is binary.
      out: its name, whose ending tells its format.

    Raises:
      BertjaxError: a question cannot be read, has no id of its own where it needs one, or a column of those that are
        added, or cannot be written so.
    """
    number, read = 0, read_questions(task, source, "--input", labelled=False)
    with (_by_id if out.suffix == ".json" else _beside)(file, out) as write:
        while some := list(islice(read, _AT_ONCE)):
            found = answerer.answers([(question.question, question.context) for _, question in some])
            for (record, question), answer in zip(some, found, strict=True):
                write(record, question, answer)
            number += len(some)
    if not number:
        raise BertjaxError(f"{source} has no questions; give --input some")
    return number


@contextlib.contextmanager
def _by_id(file: IO[str], out: Path) -> Iterator[Write]:
    texts: dict[str, str] = {}

    def write(_: dict[str, Any], question: Question, answer: FoundAnswer) -> None:
        if question.id is None or question.id in texts:
            what = "no id" if question.id is None else f"the id {question.id!r}, as another has"
            raise BertjaxError(
                f"{question.place} has {what}, and by these answers stand in {out}; give --out a name in .jsonl"
            )
        texts[question.id] = answer.text

    yield write
    print(json.dumps(texts, ensure_ascii=False, indent=1), file=file)


@contextlib.contextmanager
def _beside(file: IO[Any], out: Path) -> Iterator[Write]:
    with record_writer(file, out) as write_record:

        def write(record: dict[str, Any], question: Question, answer: FoundAnswer) -> None:
            probability = round(answer.probability, _DIGITS)
            added = {"prediction": answer.text, "answer_start": answer.start, "probability": probability}
            if there := [column for column in added if column in record]:
                raise BertjaxError(
                    f"{question.place} has a column {there[0]} already; name it otherwise, or leave it out"
                )
            write_record(question.place, record | added)

        yield write
