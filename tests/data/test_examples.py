"""Labelled examples: rows of any kind of file, their labels, and which are held out."""

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from bertjax.config import TaskConfig
from bertjax.data.examples import Label, Row, make_examples, split
from bertjax.data.examples import read_rows as read_rows_by
from bertjax.data.sources.lines import Part
from bertjax.data.sources.records import Place
from bertjax.data.targets import Labels, Scores, from_json, label_reader, learn_targets, to_json
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

TASK = TaskConfig("classify")
ROWS = [("a good film", "pos"), ('a "bad" one, too', "neg"), ("so\nso", "neg"), ("", "pos")]


def read_rows(task: TaskConfig, path: str, key: str) -> list[Row]:
    return read_rows_by(task, path, key, label_reader(task))


def rows_of(path: Path, task: TaskConfig = TASK) -> list[tuple[str, Label]]:
    return sorted((row.item[0], row.label) for row in read_rows(task, str(path), "task.train"))


def made(labels: str, texts: str = "") -> list[Row]:
    """A row for each letter, which is its label; the texts are numbers, or letters."""
    place = Place(Part("a.csv"), "row", 1)
    return sorted(
        (Row((str(text), None), label, place) for text, label in zip(texts or range(len(labels)), labels, strict=True)),
        key=lambda row: row.key,
    )


def test_rows_are_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    table = 'text,label\na good film,pos\n"a ""bad"" one, too", neg\n"so\nso",neg\n,pos\n'
    records = [{"text": text, "label": label} for text, label in ROWS]
    (tmp_path / "a.csv").write_text(table)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(table.encode()))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "a.json").write_text(json.dumps(records))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet")
    for name in ("a.csv", "a.csv.gz", "a.jsonl", "a.json", "a.parquet"):
        assert rows_of(tmp_path / name) == sorted(ROWS), name
    assert len(rows_of(tmp_path / "a.*[vnt]")) == 3 * len(ROWS)  # several files, by a pattern


def test_columns_go_by_name_and_numbers_are_labels(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": {"b": "one"}, "c": "two", "n": 10}\n{"a": {"b": "1"}, "c": "2", "n": 9}\n')
    rows = read_rows(TaskConfig("classify", text="a.b", pair="c", label="n"), str(file), "task.train")
    assert sorted((row.item, row.label) for row in rows) == [(("1", "2"), "9"), (("one", "two"), "10")]
    assert [learn_targets(TASK, some) for some in (rows, made("ba"))] == [Labels(("9", "10")), Labels(("a", "b"))]


WRONG = [  # a file's name and text, what the task has otherwise, and what the line must hold
    ("a.csv", "text,labl\nx,a\n", {}, ["line 2 of", "nothing in the column 'label' (task.label), but in text, labl"]),
    ("a.csv", "text,label\nx,a\ny,b,c\n", {}, ["line 3 of", "1 fields more than there are columns"]),
    ("a.csv", "text,label\nx,a\ny\n", {}, ["line 3 of", "task.label"]),
    ("a.csv", "text,label\nx, \n", {}, ["line 2 of", "no label in 'label' (task.label)"]),
    ("a.csv", "text,label\n", {}, ["has no rows", "task.train"]),
    ("a.csv", 'text,label\n"x,a\n', {}, ["line 2 of", "no row of a table"]),
    ("a.tsv", "text\tlabel\nx\ta\n", {"pair": "other"}, ["line 2 of", "'other' (task.pair)"]),
    ("a.jsonl", '{"text": "x", "label": null}\n', {}, ["line 1 of", "nothing in the column 'label'"]),
    ("a.jsonl", '{"text": 1, "label": "a"}\n', {}, ["line 1 of", "no text as 'text' (task.text)"]),
    ("a.jsonl", '{"text": "x", "label": ["a"]}\n', {}, ["line 1 of", "no label", "['a']"]),
    ("a.jsonl", '{"text": "x"\n', {}, ["line 1 of", "is no JSON"]),
    ("a.jsonl", "[1]\n2\n", {}, ["line 1 of", "is no record"]),
    ("a.txt", "x\n", {}, ["a.txt has no columns", ".csv, .tsv, .jsonl"]),
    ("a.csv", "text,label\nx,1.5\ny,high\n", {"kind": "score"}, ["line 3 of", "no number in 'label'", "'high'"]),
    ("a.csv", "text,label\nx,nan\n", {"kind": "score"}, ["line 2 of", "no number", "'nan'"]),
    ("a.jsonl", '{"text": "x", "label": true}\n', {"kind": "score"}, ["line 1 of", "no number", "True"]),
    ("a.csv", "text,p,label\nx,y,2\n", {"kind": "rerank", "pair": "p"}, ["line 2 of", "2.0", "from 0 to 1; divide"]),
    ("a.jsonl", '{"text": "x", "label": [["a"]]}\n', {"label_separator": ","}, ["line 1 of", "no label", "['a']"]),
    ("a.jsonl", '{"text": "x", "label": 3}\n', {"label_separator": ","}, ["line 1 of", "no labels", "3"]),
    ("a.csv", "text,label\nx,a\n", {"group": "doc"}, ["line 2 of", "nothing in the column 'doc' (task.group)"]),
]


@pytest.mark.parametrize("name, text, other, parts", WRONG)
def test_what_cannot_be_read_is_named_by_file_row_and_column(
    tmp_path: Path, name: str, text: str, other: dict, parts: list[str]
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BertjaxError) as error:
        read_rows(TaskConfig(**{"kind": "classify"} | other), str(tmp_path / name), "task.train")
    assert [part for part in (*parts, name) if part not in str(error.value)] == [] and "\n" not in str(error.value)


def test_no_file_and_labels_that_will_not_do() -> None:
    with pytest.raises(BertjaxError, match="no file at 'none.csv'.*as task.eval"):
        read_rows(TASK, "none.csv", "task.eval")
    with pytest.raises(BertjaxError, match="every one of 3 rows has the label 'a'"):
        learn_targets(TASK, made("aaa"))
    with pytest.raises(BertjaxError, match="row 1 of a.csv has the label 'c', which no example.*a, b"):
        Labels(("a", "b")).numbers(made("abc"))


def test_a_split_is_stratified_and_seeded_and_does_not_look_at_the_order() -> None:
    rows = made("a" * 100 + "b" * 20 + "c" + "dd")
    train, held_out = split(rows, 0.1, seed=0)
    assert Counter(row.label for row in held_out) == {"a": 10, "b": 2}
    assert sorted(train + held_out, key=lambda row: row.key) == rows
    other = random.Random(0).sample(rows, len(rows))
    assert {row.item for row in split(other, 0.1, seed=0)[1]} == {row.item for row in held_out}
    assert {row.item for row in split(rows, 0.1, seed=1)[1]} != {row.item for row in held_out}
    assert [len(part) for part in split(made("aabb"), 0.9, seed=0)] == [2, 2]  # each label has something to teach


def test_equal_texts_stay_on_one_side() -> None:
    rows = made("ab" * 60, "xxyyzz" * 20)
    train, held_out = split(rows, 0.4, seed=3)
    assert held_out and not {row.key for row in train} & {row.key for row in held_out}
    assert len(train) + len(held_out) == 120


def test_rows_of_a_group_stay_on_one_side_and_so_do_equal_texts_of_other_labels() -> None:
    rows = made("ab" * 60, "xxyyzz" * 20)  # each text has either label
    train, held_out = split(rows, 0.4, seed=3)
    assert held_out and not {row.item for row in train} & {row.item for row in held_out}
    rows = [row._replace(group=str(int(row.item[0]) // 6)) for row in made("ab" * 60)]
    train, held_out = split(rows, 0.1, seed=3)
    assert len(held_out) == 12 and not {row.group for row in train} & {row.group for row in held_out}


def test_a_query_is_held_out_whole(tmp_path: Path) -> None:
    file, task = tmp_path / "a.csv", TaskConfig("rerank", text="query", pair="passage")
    file.write_text("query,passage,label\n" + "".join(f"q{n % 20},p{n},{n % 2}\n" for n in range(80)))
    train, held_out = split(read_rows(task, str(file), "task.train"), 0.2, seed=0)
    assert len(held_out) == 16 and not {row.item[0] for row in train} & {row.item[0] for row in held_out}
    by_passage = TaskConfig("rerank", text="query", pair="passage", group="passage")
    assert {row.group for row in read_rows(by_passage, str(file), "task.train")} == {f"p{n}" for n in range(80)}


def test_several_labels_or_none(tmp_path: Path) -> None:
    file, task = tmp_path / "a.csv", TaskConfig("classify", label_separator="|")
    file.write_text("text,label\nx,b | a\ny,\nz,a|a\n")
    rows = read_rows(task, str(file), "task.train")
    targets = learn_targets(task, rows)
    assert targets == Labels(("a", "b"), True) == from_json(to_json(targets).decode())
    told = {row.item[0]: has.tolist() for row, has in zip(rows, targets.numbers(rows), strict=True)}
    assert told == {"x": [1, 1], "y": [0, 0], "z": [1, 0]}
    assert targets.described(targets.numbers(rows)) == "labels:   a (2), b (1); 1 examples have none"
    assert targets.weights(targets.numbers(rows)) == [1 / 2, 2]
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": ["b", "a"]}\n{"text": "y", "label": []}\n')
    assert sorted(row.label for row in read_rows(task, str(tmp_path / "a.jsonl"), "")) == [(), ("a", "b")]
    with pytest.raises(BertjaxError, match="every one of 1 rows has no label"):
        learn_targets(task, [row for row in rows if row.item[0] == "y"])


def test_numbers_are_learned_by_how_they_lie() -> None:
    rows = [row._replace(label=float(row.item[0])) for row in made("a" * 5)]
    targets = learn_targets(TaskConfig("score"), rows)
    assert targets == Scores(2, 2**0.5) == from_json(to_json(targets).decode())
    learned_n = targets.numbers(rows)
    assert learned_n.mean() == pytest.approx(0, abs=1e-6) and learned_n.std() == pytest.approx(1)
    assert targets.scores(learned_n) == pytest.approx([row.label for row in rows], abs=1e-6)
    assert targets.described(learned_n) == "numbers:  0 to 4, mean 2"
    assert Scores(1e-9, 1.0).described(np.array([-2e-9, 1])) == "numbers:  0 to 1, mean 0.5"
    assert learn_targets(TaskConfig("rerank", pair="p"), rows) == Scores()
    with pytest.raises(BertjaxError, match="every one of 5 rows has the number 3.0"):
        learn_targets(TaskConfig("score"), [row._replace(label=3.0) for row in rows])
    for bad in ("[1]", '["a"]', "{}", "3", '{"names": ["a"]}'):
        with pytest.raises(ValueError):
            from_json(bad)


def test_shuffled_rows_are_the_same_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = Tokenizer.train(["one two three four five six"], min_frequency=1)
    lines = [*(f"{text},{label}\n" for text, label in zip("one two three four".split(), "abab", strict=True)), ",a\n"]
    lines.append("one two three four five six,b\n")

    def examples(lines: list[str]) -> list:
        file = tmp_path / "a.csv"
        file.write_text("text,label\n" + "".join(lines))
        rows = read_rows(TASK, str(file), "task.train")
        return [*make_examples(rows, Labels(("a", "b")).numbers(rows), tokenizer, max_length=6, name="a.csv")]

    name, digest, *arrays = examples(lines)
    said = capsys.readouterr().out
    assert "16.7% of a.csv are shortened to data.max_length=6 tokens" in said
    assert "1 of a.csv have an empty text" in said
    _, again, *others = examples(lines[::-1])
    assert digest == again and all((one == other).all() for one, other in zip(arrays, others, strict=True))
    assert examples(lines[1:])[1] != digest
    ids, starts_n, len_a_n, labels_n = arrays
    assert sorted(zip((starts_n[1:] - starts_n[:-1]).tolist(), labels_n.tolist(), strict=True))[0] == (2, 0)
