"""A line is in the file altogether or not at all, and none is lost."""

import math
import resource
from pathlib import Path

import pytest

from bertjax.errors import BertjaxError
from bertjax.storage.json_lines import JsonLines


def test_numbers_that_json_cannot_carry_become_null(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "x.jsonl")
    lines.append({"step": 1, "loss": math.nan})
    assert lines.path.read_text() == '{"step": 1, "loss": null}\n'


def test_a_line_for_which_there_is_no_room_goes_before_the_next(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "x.jsonl")
    lines.append({"step": 1})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limit[1]))  # the next line begins in it and does not end in it
    try:
        for step in (2, 3):
            with pytest.raises(OSError, match="File too large: .*x.jsonl"):
                lines.append({"step": step})
            assert lines.path.read_text() == '{"step": 1}\n'
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    lines.append({"step": 4})
    assert lines.read() == [{"step": step} for step in (1, 2, 3, 4)]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "gone" / "x.jsonl")
    with pytest.raises(FileNotFoundError):
        lines.append({"step": 1})
    lines.path.parent.mkdir()
    lines.append({"step": 2})
    assert lines.read() == [{"step": 1}, {"step": 2}]


def test_a_line_cut_short_is_not_read(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "x.jsonl")
    assert lines.read() == []
    lines.append({"step": 1})
    lines.path.write_text(lines.path.read_text() + '{"step"')
    assert lines.read() == [{"step": 1}]
    lines.rewrite(lines.read())
    assert lines.path.read_text() == '{"step": 1}\n'


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"step": "1"}', '{"step": 1, "loss": "x"}', '{"step": 1, "x": NaN}']
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    lines = JsonLines(tmp_path / "x.jsonl")
    lines.append({"step": 1})
    lines.path.write_text(lines.path.read_text() + line + "\n")
    with pytest.raises(BertjaxError, match="x.jsonl, line 2, is not as it was written"):
        lines.read()
