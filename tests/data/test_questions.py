"""Questions of any kind of file, with answers that stand where they are said to, and which are held out."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from asked_questions import questions, write_squad

from bertjax.config import TaskConfig
from bertjax.data.questions import Answer, Question, read_questions, sorted_questions, split_questions
from bertjax.data.sources.lines import Part
from bertjax.data.sources.records import Place
from bertjax.errors import BertjaxError

TASK = TaskConfig("answer", text="question", pair="context", label="answers")
ROME = {"id": "7", "question": "Where?", "context": "In Rome, in Róme."}
ROME |= {"answers": {"text": ["Rome", "Róme"], "answer_start": [3, 12]}}
NOWHERE = {"id": "8", "question": "When?", "context": "In Rome.", "answers": {"text": [], "answer_start": []}}
SAID = [("7", "Where?", "In Rome, in Róme.", (("Rome", 3), ("Róme", 12))), ("8", "When?", "In Rome.", ())]


def said(path: Path, task: TaskConfig = TASK) -> list[tuple[Any, ...]]:
    return [
        (one.id, one.question, one.context, one.answers) for _, one in read_questions(task, str(path), "task.train")
    ]


def test_one_question_is_the_same_from_a_file_of_any_kind(tmp_path: Path) -> None:
    rows = [ROME, NOWHERE]
    squad = write_squad(tmp_path / "squad.json", rows)
    (tmp_path / "pretty.json").write_text(json.dumps(json.loads(squad.read_text()), indent=2))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(squad.read_bytes()))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    as_text = [row | {"answers": json.dumps(row["answers"])} for row in rows]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in as_text))
    cells = [[row["id"], row["question"], row["context"], row["answers"]] for row in as_text]
    quoted = ("\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells)) + "\n"
    (tmp_path / "a.csv").write_text("id,question,context,answers\n" + quoted)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("squad.json", "pretty.json", "a.json.gz", "a.jsonl", "texts.jsonl", "a.csv", "a.parquet"):
        assert said(tmp_path / name) == SAID, name
    (tmp_path / "named.jsonl").write_text(json.dumps({"q": "Where?", "of": {"c": "In Rome."}, "a": []}) + "\n")
    assert said(tmp_path / "named.jsonl", TaskConfig("answer", text="q", pair="of.c", label="a")) == [
        (None, "Where?", "In Rome.", ())
    ]


def test_without_answers_the_records_come_with_their_questions(tmp_path: Path) -> None:
    asked = {"id": "7", "question": "Where?"}
    whole = {"data": [{"title": "Rome", "paragraphs": [{"context": "In Rome.", "qas": [asked]}]}]}
    (tmp_path / "a.json").write_text(json.dumps(whole))
    ((record, question),) = read_questions(TASK, str(tmp_path / "a.json"), "--input", labelled=False)
    assert record == {"id": "7", "title": "Rome", "context": "In Rome.", "question": "Where?"}
    assert (question.id, question.answers, question.called) == ("7", (), f"question 1 of {tmp_path / 'a.json'} (id 7)")


def squad(**asked: Any) -> str:
    one = {"context": "In Rome.", "qas": [{"id": "7", "question": "Where?"} | asked]}
    return json.dumps({"version": "1.1", "data": [{"title": "x", "paragraphs": [one]}]})


def line(**row: Any) -> str:
    return json.dumps(ROME | row) + "\n"


WRONG = [
    (squad(answers=[{"text": "Rome", "answer_start": 4}]), "question 1 of FILE (id 7) has the answer 'Rome' at answ"),
    (squad(answers=[{"text": "Rom", "answer_start": "3"}]), "question 1 of FILE (id 7) has answer_start='3', which is"),
    (squad(answers=[{"text": "", "answer_start": 3}]), "question 1 of FILE (id 7) has an empty answer"),
    (squad(answers=[{"answer_start": 3}]), "question 1 of FILE (id 7): an answer has no text as 'text'"),
    (squad(), "question 1 of FILE has nothing in the column 'answers' (task.label), but in id, title, context, questi"),
    (
        squad(answers=[{"text": "Rome", "answer_start": 3}], is_impossible=True),
        "question 1 of FILE (id 7) has answers,",
    ),
    (json.dumps({"data": [{"title": "x"}]}), "FILE has something in its data without a list of 'paragraphs'"),
    (json.dumps({"data": [{"paragraphs": [7]}]}), "FILE has something in its data without a list of 'qas'"),
    (line(answers="Rome"), "line 1 of FILE (id 7) has no JSON in 'answers' (task.label)"),
    (line(answers={"text": ["Rome"]}), "line 1 of FILE (id 7) has no answers in 'answers' (task.label), as in {"),
    (line(answers={"text": ["Rome"], "answer_start": [-5]}), "line 1 of FILE (id 7) has answer_start=-5, which is no"),
    (line(answers={"text": ["Oslo"], "answer_start": [3]}), "line 1 of FILE (id 7) has the answer 'Oslo' at answer_st"),
    (line(context=7), "line 1 of FILE has no text as 'context' (task.pair)"),
    (json.dumps({"question": "Where?"}) + "\n", "line 1 of FILE has nothing in the column 'context' (task.pair), but"),
    ("[7]", "record 1 of FILE has nothing in the column 'question' (task.text), but is no record"),
]


@pytest.mark.parametrize("text, reason", WRONG)
def test_what_cannot_be_read_is_named_by_file_question_and_reason(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(BertjaxError) as error:
        sorted_questions(TASK, str(file), "task.train")
    assert str(error.value).startswith(reason.replace("FILE", str(file))) and "\n" not in str(error.value)


def test_where_an_answer_is_instead_is_said(tmp_path: Path) -> None:
    for start, found in ((4, "its context has 'ome,'; it is at 3;"), (99, "its context has ''; it is at 3;")):
        (tmp_path / "a.jsonl").write_text(line(answers={"text": ["Rome"], "answer_start": [start]}))
        with pytest.raises(BertjaxError, match=found):
            said(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(BertjaxError, match="has no questions; give task.train some"):
        sorted_questions(TASK, str(tmp_path / "a.jsonl"), "task.train")


def test_neither_the_order_nor_the_seed_of_a_split_parts_a_context(tmp_path: Path) -> None:
    made = [one | {"context": f"{number // 3}: {one['context']}"} for number, one in enumerate(questions(60, 1))]
    place = Place(Part("a"), "line", 1)
    rows = [
        Question(one["question"], one["context"].split(":")[0], (Answer("a", number),), place)
        for number, one in enumerate(made)
    ]
    rows.sort(key=lambda one: one.key)
    assert sum(one.context != other.context for one, other in zip(rows, rows[1:], strict=False)) == 19  # neighbours
    train, held_out = split_questions(rows, 0.25, seed=0)
    assert len(held_out) == 15 and len(train) == 45
    assert not {one.context for one in train} & {one.context for one in held_out}
    other = sorted(random.Random(0).sample(rows, 60), key=lambda one: one.key)
    assert split_questions(other, 0.25, seed=0)[1] == held_out != split_questions(rows, 0.25, seed=1)[1]
    by_group = [one._replace(group=str(number % 4)) for number, one in enumerate(rows)]
    assert {one.group for one in split_questions(by_group, 0.25, seed=0)[1]} < {"0", "1", "2", "3"}
