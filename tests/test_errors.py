"""How commands end: one table of codes, documented, and the code of each kind of error."""

import errno
import re
from pathlib import Path

import pytest

from bertjax.cli import main as command_line
from bertjax.cli import train
from bertjax.errors import BertjaxError, DivergedError, ExitCode
from bertjax.runs.signals import Terminated


def raised_from(cause: BaseException) -> BertjaxError:
    error = BertjaxError("cannot write")
    error.__cause__ = RuntimeError("in between")
    error.__cause__.__cause__ = cause
    return error


def test_the_documented_codes_are_those_that_there_are() -> None:
    page = Path(__file__).parents[1] / "docs" / "cluster" / "README.md"
    assert re.findall(r"^\| (\d+) \|", page.read_text(encoding="utf-8"), re.MULTILINE) == [
        str(int(c)) for c in ExitCode
    ]
    told = command_line._HELP.partition("exit codes: ")[2]
    assert {int(code) for code in re.findall(r"\b\d+\b", told)} == {*ExitCode} - {ExitCode.BUG}


@pytest.mark.parametrize(
    "error, code",
    [
        (BertjaxError("train.steps=0"), 2),
        (raised_from(OSError(errno.EACCES, "Permission denied")), 2),
        (DivergedError("no number"), 3),
        (raised_from(OSError(errno.ENOSPC, "No space left on device")), 74),
        (raised_from(OSError(errno.EDQUOT, "Disk quota exceeded")), 74),
        (raised_from(ValueError("writing failed [os_error_code='28']")), 74),  # as tensorstore says it
        (SystemExit(ExitCode.STOPPED), 75),
        (Terminated(), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_end_has_its_code(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_: list[str]) -> None:
        raise error

    monkeypatch.setattr(train, "pretrain", end)
    try:
        ended = command_line.main(["pretrain"])
    except SystemExit as left:  # which is Python's own way to end with a code
        ended = left.code
    assert ended == code
