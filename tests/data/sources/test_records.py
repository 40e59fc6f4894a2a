"""The text of records in JSON, in tables and in Parquet, however they are laid out."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from refusals import refusal

from bertjax.data.sources import records
from bertjax.data.sources.formats import Layout, read
from bertjax.data.sources.lines import BadError, Part
from bertjax.data.sources.records import texts

RECORDS: list[Any] = [{"id": 1, "text": 'One, "two".\nThree.'}, {"text": "Four \u6771."}]
TEXTS = ['One, "two".\nThree.', "Four \u6771."]


def of(file: Path, field: str = "text") -> list[str]:
    """Texts, and what is said of records that have none."""
    return [str(text) for text in texts(Part(str(file)), field)]


def bad(file: Path, field: str = "text") -> str:
    with pytest.raises(BadError) as caught:
        of(file, field)
    return str(caught.value)


# JSON.


@pytest.mark.parametrize("piece", [1 << 20, 7, 1])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        json.dumps(RECORDS, ensure_ascii=False).replace("}, {", "}\r\n,\r\n{"),
        "\n\n " + json.dumps(RECORDS),
        "\n".join(json.dumps(record, indent=1) for record in RECORDS),
        "\n".join(json.dumps([record]) for record in RECORDS),
    ],
    ids=["an array", "indented", "a record a line", "after blank lines", "one after another", "several arrays"],
)
def test_json_of_every_layout(tmp_path: Path, text: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_PIECE", piece)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert of(tmp_path / "a.json") == TEXTS


def test_json_of_one_record_a_line_is_read_a_line_at_a_time(tmp_path: Path) -> None:
    """So that a damaged one costs no other."""
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text("\n".join(['{"text": "One."}', "{", "[", '{"text": "Two."}']))
        first, *of_bad, last = of(tmp_path / name)
        assert (first, last, len(of_bad)) == ("One.", "Two.", 2) and "line 2 of" in of_bad[0]


@pytest.mark.parametrize(
    "text, complaint",
    [
        ('[{"text": "One."}, {"text": "Two."', "a.json is no JSON from its record 2 on"),
        ('[{"text": "One."}, {text: "Two."}]', "a.json is no JSON from its record 2 on"),
        ('[{"text": "One."}', "a.json is no JSON: its array has no end after 1 records"),
        ('[{"text": "One."}]}', "a.json is no JSON from its record 2 on"),
        ("[" * 100_000, "a.json is no JSON from its record 1 on"),
    ],
)
def test_an_array_that_is_damaged(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert complaint in bad(tmp_path / "a.json")


def test_elements_without_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "One."}, "two", 34, [{"text": "Five."}], {"text": null}]')
    first, *others = of(tmp_path / "a.json")
    assert first == "One."
    assert others == [f"record {n} of {tmp_path}/a.json has no text as 'text' (data.text_field)" for n in (2, 3, 4, 5)]


def test_an_array_is_read_with_little_memory_and_in_time_that_grows_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_LONGEST", 2_000)
    (tmp_path / "a.json").write_text(json.dumps([{"text": f"Crane {n}."} for n in range(9_000)], indent=1))
    assert len(of(tmp_path / "a.json")) == 9_000
    (tmp_path / "a.json").write_text('[{"text": "One."}, {"text": "' + "two " * 1_000_000)
    tried: list[int] = []

    class Decoder(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> Any:
            tried.append(len(s))
            return super().raw_decode(s, idx)

    monkeypatch.setattr(json, "JSONDecoder", Decoder)
    monkeypatch.setattr(records, "_PIECE", 100)
    assert "no JSON from its record 2 on" in bad(tmp_path / "a.json")
    assert len(tried) < 9 and max(tried) < 5_000


@pytest.mark.parametrize(
    "record, field, text",
    [
        ({"a": {"b": "One."}}, "a.b", "One."),
        ({"a": {"b": {"c": "One."}}}, "a.b.c", "One."),
        ({"a.b": "One.", "a": {"b": "Two."}}, "a.b", "One."),
        ({"a": {"b.c": "One."}}, "a.b.c", "One."),
        ({"a": "One."}, "a.b", None),
        ({"a": ["One."]}, "a.0", None),
        ({"a": {"": "One."}}, "a.", None),
    ],
)
def test_a_field_of_a_field(tmp_path: Path, record: dict[str, Any], field: str, text: str | None) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), tmp_path / "a.parquet")
    for name, where in (("a.jsonl", "line"), ("a.parquet", "row")):
        file = tmp_path / name
        assert of(file, field) == [text or f"{where} 1 of {file} has no text as {field!r} (data.text_field)"]


# Tables.


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.csv", 'id,text\r\n1,"One, ""two"".\r\nThree."\r\n\r\n2,Four \u6771.\r\n', TEXTS),
        ("a.csv", 'text\n"One, ""two"".\nThree."\nFour \u6771.', TEXTS),
        ("a.csv", 'text, id\n,1\n"",2\n One. ,3', ["", "", " One. "]),
        ("a.tsv", 'id\ttext\tmore\n\t"One" is.\t\n\t\t\n3\tFour.\n', ['"One" is.', "", "Four."]),
        ("a.csv", "text\n", []),
        ("a.csv", "", []),
    ],
)
def test_tables(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert of(tmp_path / name) == expected


def test_rows_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('id,text\n1\n2,"One" two.\n3,Three.\n4,"Four.\n\n5,Five.\n')
    short, quoted, third, rest = of(file)
    assert short == f"line 2 of {file} has no text as 'text' (data.text_field)" and third == "Three."
    assert f"line 3 of {file} is no row of a table, nor what follows to line 3 (" in quoted
    assert f"line 5 of {file} is no row of a table, nor what follows to line 8 (" in rest
    assert bad(file, "body") == f"{file} has no column 'body' (data.text_field), but id, text"
    file.write_text(f'text\n"{"long " * 100_000}"\n')
    assert len(of(file)[0]) == 500_000  # csv's own limit is 131,072 characters


# Parquet.


@pytest.mark.parametrize(
    "kind", ["string", "large_string", "string_view", "binary", "large_binary", pyarrow.binary(4), "dictionary"]
)
def test_columns_of_every_kind_of_text(tmp_path: Path, kind: Any) -> None:
    values: Any = ["One.", None, "Two.", "Two."]
    if kind == "dictionary":
        column = pyarrow.array(values).dictionary_encode()
    else:
        column = pyarrow.array(values, pyarrow.type_for_alias(kind) if isinstance(kind, str) else kind)
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    first, null, *others = of(tmp_path / "a.parquet")
    assert (first, *others) == ("One.", "Two.", "Two.")
    assert null == f"row 2 of {tmp_path}/a.parquet has no text as 'text' (data.text_field)"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    for values in ([b"One.", b"\xff"], [1, 2], [["One."], ["Two."]]):
        pyarrow.parquet.write_table(pyarrow.table({"text": values}), tmp_path / "a.parquet")
        assert "row 2 of" in of(tmp_path / "a.parquet")[1]
    assert "has no text" in of(tmp_path / "a.parquet")[0]


def test_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.zst").write_bytes(b"")
    (tmp_path / "a.parquet").write_bytes(b"")
    for module in ("backports", "compression", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("a.txt.zst", "a.parquet"):
        assert "pip install 'bertjax[parquet]'" in refusal(list, read(Part(str(tmp_path / name)), Layout()))
