"""Rows of files of every kind: the same texts whatever they are in, parts that are the whole, and what is refused."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from refusals import refusal

from bertjax.inference.rows import Reading, Row, bytes_of, find_sources, parse_part, read_rows, windows

RECORDS = [
    {"id": str(number), "text": f"text {number}" if number % 4 else "", "more": "é,\u2028"} for number in range(23)
]


def write(folder: Path, name: str, records: list[Any]) -> str:
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    elif name.endswith((".csv", ".tsv")):
        between = "," if name.endswith(".csv") else "\t"
        quoted = [[f'"{value}"' if between == "," else value for value in record.values()] for record in records]
        path.write_text("".join(f"{between.join(row)}\n" for row in [[*records[0]], *quoted]), encoding="utf-8")
    else:
        lines = "".join(json.dumps(record) + "\n" for record in records).encode()
        path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    return str(path)


def texts(files: list[str], reading: Reading = Reading()) -> list[Any]:  # noqa: B008
    return [row.text for row in read_rows(files, reading)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.tsv", "a.parquet"])
def test_records_are_the_same_in_any_kind_of_file(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name, RECORDS)
    rows = list(read_rows([file], Reading(keep=None)))
    assert [row.text for row in rows] == [record["text"] for record in RECORDS]
    assert [json.loads(row.record) for row in rows] == RECORDS and f"of {file}" in str(rows[3].place)
    assert texts([file], Reading(("more", "text"))) == [(record["more"], record["text"]) for record in RECORDS]
    some = [json.loads(row.record) for row in read_rows([file], Reading(("more",), ("id",)))]
    assert some == [{"id": record["id"]} for record in RECORDS]
    assert {row.record for row in read_rows([file], Reading())} == {b""}


def test_lines_and_what_is_kept_of_them(tmp_path: Path) -> None:
    one, other = tmp_path / "1.txt", tmp_path / "2.txt"
    one.write_text("a crane\nhe\tleft\n"), other.write_text("\nis flying")
    assert find_sources(str(tmp_path)) == find_sources(f"{one}:{other}") == find_sources(f"{tmp_path}/*.txt")
    files = find_sources(str(tmp_path))
    assert bytes_of(files) == 26 and bytes_of([*files, "-"]) is None
    assert texts(files) == ["a crane", ("he", "left"), "", "is flying"]

    def kept(files: list[str], keep: tuple[str, ...] | None, all_of_it: bool = False) -> list[Any]:
        return [json.loads(row.record) for row in read_rows(files, Reading((), keep, text_of_lines=all_of_it))]

    assert kept(files[:1], None) == [{"line": 1}, {"line": 2}]
    assert kept(files, None)[2] == {"file": str(other), "line": 1}
    assert kept(files[:1], None, True) == [{"line": 1, "text": "a crane"}, {"line": 2, "text": "he", "pair": "left"}]
    assert kept(files, ("text", "line"))[3] == {"text": "is flying", "line": 2}


def test_parts_are_the_whole(tmp_path: Path) -> None:
    files = [write(tmp_path, "a.jsonl", RECORDS), write(tmp_path, "b.csv", RECORDS[:4])]
    whole = list(read_rows(files, Reading(keep=None)))
    for parts in (1, 2, 5, 40):
        found: list[Row | None] = [None] * len(whole)
        for part in range(1, parts + 1):
            found[part - 1 :: parts] = read_rows(files, Reading(keep=None, part=part, parts=parts))
        assert found == whole
    assert parse_part("3/40") == (3, 40)
    for bad in ("0/4", "5/4", "1", "1/0", "a/b", "-1/2", "1/2/3", ""):
        assert f"--split {bad} is no part of the rows; give i/n" in refusal(parse_part, bad)


def test_windows_end_alike_wherever_they_begin(tmp_path: Path) -> None:
    files = [write(tmp_path, "a.jsonl", RECORDS)]

    def cut(after: int) -> list[Any]:
        rows, digest = read_rows(files, Reading(keep=None)), hashlib.sha256()
        for _ in range(after):
            row = next(rows)
            digest.update(row.content + row.record)
        return [window.end for window in windows(rows, after=after, digest=digest, tokens=40)]

    whole = cut(0)
    assert [end.lines for end in whole] == [5, 10, 15, 20, 23] and cut(10) == whole[2:]


@pytest.mark.parametrize(
    "name, records, reading, told",
    [
        ("a.jsonl", [{"text": "a"}, {"text": None}], Reading(), "line 2 of a.jsonl has nothing in the column 'text' ("),
        ("a.jsonl", [{"text": "a"}, {"text": 3}], Reading(), "line 2 of a.jsonl has no text as 'text' (--column)"),
        ("a.jsonl", [{"text": "\ud800"}], Reading(), "line 1 of a.jsonl holds half a character"),
        ("a.jsonl", [["a"]], Reading(), "line 1 of a.jsonl has nothing in the column 'text' (--column), but is no"),
        ("a.csv", [{"body": "a", "id": "1"}], Reading(), "a.csv has no column 'text' (--column), but body, id"),
        ("a.parquet", [{"b": "a"}], Reading(keep=None), "row 1 of a.parquet has nothing in the column 'text' (--colu"),
        ("a.parquet", [{"b": "a"}], Reading(("text", "b")), "a.parquet has no column 'text' (--column), but b"),
        ("a.csv", [{"text": "a", "id": "1"}], Reading(keep=("no",)), "a.csv has no column 'no' (--keep), but text, id"),
        ("a.jsonl", [{"text": "a"}], Reading(keep=("no",)), "line 1 of a.jsonl has no column 'no' (--keep), but text"),
        ("a.jsonl", [{"text": "a", "vector": 1}], Reading(keep=None), "line 1 of a.jsonl has a column vector, as "),
        ("a.txt", [], Reading(("text",)), "--input a.txt is plain text and has no columns; leave out --column"),
        ("a.txt", ["a"], Reading(keep=("no",)), "line 1 of a.txt has no column 'no' (--keep), but line, text; name"),
    ],
)
def test_rows_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, records: list[Any], reading: Reading, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, name, records)
    assert told in refusal(lambda: texts([name], reading))


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "none.txt is not there; give a file of text, or - for" in refusal(find_sources, str(tmp_path / "none.txt"))
    assert "there is no file at" in refusal(find_sources, f"{tmp_path}/*.txt")
    assert find_sources("-") == ["-"] and find_sources("/dev/null") == ["/dev/null"]
