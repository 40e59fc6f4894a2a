"""Tuples of texts: rows of any kind of file, what is wrong with them, and which are held out."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from bertjax.config import TaskConfig
from bertjax.data.sources.lines import Part
from bertjax.data.sources.records import Place
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.data.tuples import TupleRow, make_tuples, read_tuples, split_tuples
from bertjax.errors import BertjaxError

PAIRS = [("a dog", "a hound"), ("one, two", 'so "three"'), ("a dog", "the cat")]


def task(**settings: Any) -> TaskConfig:
    return TaskConfig("embed", **({"pair": "pair"} | settings))


def texts_of(path: Path, task: TaskConfig) -> list[tuple[str, ...]]:
    return sorted(row.texts for row in read_tuples(task, str(path), "task.train"))


def made(*pairs: str) -> list[TupleRow]:
    """Rows of which each letter is a text."""
    return sorted((TupleRow(tuple(pair), None, Place(Part("a.csv"), "line", 1)) for pair in pairs), key=lambda r: r.key)


def test_rows_are_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    table = 'text,pair\na dog,a hound\n"one, two","so ""three"""\na dog,the cat\n'
    records = [{"text": text, "pair": pair} for text, pair in PAIRS]
    (tmp_path / "a.csv").write_text(table)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(table.encode()))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet")
    for name in ("a.csv", "a.csv.gz", "a.jsonl", "a.parquet"):
        assert texts_of(tmp_path / name, task()) == sorted(PAIRS), name
    assert len(texts_of(tmp_path / "a.*[vlt]", task())) == 9  # several files, by a pattern
    assert texts_of(tmp_path / "a.csv", task(pair=None))[0] == ("a dog", "a dog")
    (tmp_path / "b.txt").write_text("a dog\n\n  so\nso  \n")
    assert texts_of(tmp_path / "b.txt", task()) == [("a dog", "a dog"), ("so", "so"), ("so", "so")]
    with pytest.raises(BertjaxError, match="has plain text and tables or records"):
        texts_of(tmp_path / "[ab].[ct][sx]*", task())


def test_hard_negatives_come_from_columns_or_from_a_list_and_may_be_few(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,pair,n,m\na,b,c,d\ne,f,,g\nh,i,,\n")
    rows = [("a", "b", "c", "d"), ("e", "f", "g"), ("h", "i")]
    assert texts_of(tmp_path / "a.csv", task(negatives=["n", "m"])) == rows
    lists = [{"text": a, "pair": b, "n": more} for a, b, *more in rows]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lists))
    assert texts_of(tmp_path / "a.jsonl", task(negatives="n")) == rows
    tokenizer = Tokenizer.train(["a b c d e f g h i"], min_frequency=1)
    tuples = make_tuples(
        read_tuples(task(negatives="n"), str(tmp_path / "a.jsonl"), "k"), tokenizer, max_length=5, name=""
    )
    assert sorted((tuples.texts_nr >= 0).sum(1).tolist()) == [2, 3, 4] and len(tuples.lengths_m) == 9


WRONG = [  # a file's name and text, what the task has otherwise, and what the line must hold
    ("a.csv", "text,pear\nx,y\n", {}, ["line 2 of", "'pair' (task.pair)", "in text, pear", "task.pair=null"]),
    ("a.csv", "txt,pair\nx,y\n", {}, ["line 2 of", "'text' (task.text), but in txt, pair"]),
    ("a.csv", "text,pair\nx,y\n ,z\n", {}, ["line 3 of", "an empty text in the column 'text'"]),
    ("a.csv", "text,pair\nx,\n", {}, ["line 2 of", "an empty text in the column 'pair'"]),
    ("a.csv", "text,pair\nx,y,z\n", {}, ["line 2 of", "1 fields more than there are columns"]),
    ("a.csv", "text,pair\n", {}, ["has no rows", "task.train"]),
    ("a.txt", "\n", {}, ["has no rows", "task.train"]),
    ("a.txt", "x\n", {"loss": "cosent"}, ["plain text without scores"]),
    ("a.csv", "text,pair\nx,y\n", {"negatives": "n"}, ["line 2 of", "no column 'n' (task.negatives), but text, pair"]),
    ("a.jsonl", '{"text": "x", "pair": "y", "n": [1]}\n', {"negatives": "n"}, ["line 1 of", "no text as 'n'"]),
    ("a.csv", "text,pair,label\nx,y,hi\n", {"loss": "cosent"}, ["line 2 of", "no number in 'label'", "'hi'"]),
    ("a.csv", "text,pair,label\nx,y,nan\n", {"loss": "cosent"}, ["line 2 of", "no number in 'label'"]),
    ("a.jsonl", '{"text": "x", "pair": "y", "label": true}\n', {"loss": "cosent"}, ["line 1 of", "no number"]),
    ("a.csv", "text,pair,label\nx,y,1\nz,y,1\n", {"loss": "cosent"}, ["every one of 2 rows has the score 1.0"]),
]


@pytest.mark.parametrize("name, text, other, parts", WRONG)
def test_what_cannot_be_read_is_named_by_file_row_and_column(
    tmp_path: Path, name: str, text: str, other: dict[str, Any], parts: list[str]
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BertjaxError) as error:
        texts_of(tmp_path / name, task(**other))
    assert [part for part in (*parts, name) if part not in str(error.value).replace("every", f"{name} every")] == []
    assert "\n" not in str(error.value)


KEYS = [
    ({"temperature": 0.0}, "task.temperature=0.0 is impossible"),
    ({"matryoshka": []}, "are not sizes"),
    ({"matryoshka": [8, 8]}, "are not sizes"),
    ({"matryoshka": [8, "x"]}, r"task.matryoshka\[1\]: expected a whole number, got 'x'"),
    ({"negatives": ["n", "pair"]}, "not columns of their own"),
    ({"negatives": [""]}, "not columns of their own"),
    ({"loss": "cosent", "pair": None}, "learns from scored pairs alone"),
    ({"loss": "cosent", "symmetric": True}, "learns from scored pairs alone"),
    ({"pooling": "sum"}, "task.pooling: expected one of mean"),
]


@pytest.mark.parametrize("settings, reason", KEYS)
def test_keys_that_do_not_go_together(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(BertjaxError, match=reason):
        task(**settings)


def test_rows_that_share_a_text_stay_on_one_side_whatever_their_order() -> None:
    chains = [f"{chr(200 + 3 * n)}{chr(201 + 3 * n)}" for n in range(60)]
    chains += [f"{chr(202 + 3 * n)}{chr(201 + 3 * n)}" for n in range(60)]  # joined by their second text
    rows = made(*chains)
    train, held_out = split_tuples(rows, 0.2, seed=1)
    assert len(held_out) == 24 and sorted(train + held_out, key=lambda row: row.key) == rows
    sides = [{text for row in side for text in row.texts} for side in (train, held_out)]
    assert not sides[0] & sides[1]
    shuffled = made(*random.Random(0).sample(chains, len(chains)))
    assert {row.texts for row in split_tuples(shuffled, 0.2, seed=1)[1]} == {row.texts for row in held_out}
    assert {row.texts for row in split_tuples(rows, 0.2, seed=2)[1]} != {row.texts for row in held_out}
    assert split_tuples(made("ab", "bc", "cd"), 0.4, seed=0)[1] == []  # all are joined
    by_group = [row._replace(group=str(number // 4)) for number, row in enumerate(made(*chains[:60]))]
    train, held_out = split_tuples(sorted(by_group, key=lambda row: row.key), 0.3, seed=1)
    assert held_out and not {row.group for row in train} & {row.group for row in held_out}


def test_texts_that_read_the_same_are_one_and_order_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.train(["one two three four five six"], min_frequency=1)
    lines = ["One two,three\n", "one  TWO,four\n", "one two three four five six,one\n"]

    def tuples(lines: list[str]) -> list[Any]:
        (tmp_path / "a.csv").write_text("text,pair\n" + "".join(lines))
        rows = read_tuples(task(), str(tmp_path / "a.csv"), "task.train")
        return [*make_tuples(rows, tokenizer, max_length=6, name="a.csv")]

    _, digest, *arrays = tuples(lines)
    assert "16.7% of the texts of a.csv are shortened to data.max_length=6 tokens" in capsys.readouterr().out
    _, again, *others = tuples(lines[::-1])
    assert digest == again and all((one == other).all() for one, other in zip(arrays, others, strict=True))
    assert tuples(lines[1:])[1] != digest
    texts_nr = arrays[2]
    assert len(arrays[1]) - 1 == 5 and len(set(texts_nr[:, 0].tolist())) == 2
