"""Files in columns: sentences and their words, and the lines as they stand, with a field more."""

from pathlib import Path

import pytest

from bertjax.data.sources.columns import blocks
from bertjax.data.sources.lines import BadError


def test_lines_of_a_file_in_columns_are_kept_and_get_a_field_more(tmp_path: Path) -> None:
    text = (
        "# id = 1\n#\n-DOCSTART- -X- O\n\n# text of two\n# 1\nEU x O\n\u00a0U\u2028S x O\n \n\n"
        "# x O\nc x O\n\nd x O\n\n\n"
    )
    file = tmp_path / "a.conll"
    file.write_text(text)
    found = list(blocks(file))
    assert [[row[0] for row in block.rows] for block in found] == [[], ["EU", "\u00a0U\u2028S"], ["#", "c"], ["d"], []]
    assert [(block.number, block.document) for block in found[:4]] == [(3, 0), (7, 1), (11, 1), (14, 1)]
    lines = [line for block in found for line in block.beside(["T"] * len(block.rows))]
    assert lines == [line + " T" * line.endswith("x O") for line in text.split("\n")[:-1]]
    file.write_text("")
    assert list(blocks(file)) == []
    file.write_text("a\tb c\tX")
    assert [list(block.beside(["T"])) for block in blocks(file)] == [["a\tb c\tX\tT"]]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("a O\nb\n", "line 2 of FILE has 1 columns, and the first word's has 2"),
        ("\na x O\n\nb O\n", "line 4 of FILE has 2 columns, and the first word's has 3"),
        ("a\tx\nb x\n", "line 2 of FILE has 1 columns, and the first word's has 2"),
        ("x" * (1 << 20), "line 1 of FILE has more than 1,048,576 bytes"),
        ("a O\nb\0 O\n", "FILE is no text: there is a NUL in line 2"),
    ],
)
def test_what_is_in_no_columns_is_named_by_its_line(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "a.conll"
    file.write_text(text)
    with pytest.raises(BadError) as error:
        list(blocks(file))
    assert str(error.value) == reason.replace("FILE", str(file))
