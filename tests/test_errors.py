"""How commands end: one table of codes, documented, and the code of each kind of error. And what messages show."""

import errno
import logging
import re
from pathlib import Path

import pytest

from bertjax.cli import main as command_line
from bertjax.cli import train
from bertjax.cli.terminal import say, shown_on_terminal
from bertjax.errors import BertjaxError, DivergedError, ExitCode, shown, visible, warn
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


# What messages show.

ODD = "a\x1b[31m\u202eb\x9b\r\nc\u2028d\ud800"  # red, turned about, a line of its own, half a character
FIT = "a\\x1b[31m\\u202eb\\x9b c d\\ud800"


def test_what_is_shown_is_one_line_and_acts_on_nothing() -> None:
    assert shown(ODD) == str(BertjaxError(ODD)) == FIT
    plain = "déjà vu, \u05e9\u05dc\u05d5\u05dd, 日本語, \u200d, 😀"
    assert shown(plain) == plain
    assert visible("one\n\ttwo\x07") == "one\n\ttwo\\x07"


def test_a_long_text_is_shown_with_its_beginning_and_its_end() -> None:
    said = str(BertjaxError(f"given {'x' * 10**8}; give less"))
    assert len(said) < 2100 and said.startswith("given xxx") and said.endswith("xxx; give less")


def test_everything_that_is_shown_goes_through_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning) as caught:
        warn(ODD + "x" * 10**6)
    assert str(caught[0].message).startswith(FIT) and len(str(caught[0].message)) < 2100
    assert caught[0].filename == __file__
    # pytest's processes send each other what was logged, and half a character cannot be sent.
    odd, fit = ODD.replace("\n", "").removesuffix("\ud800"), FIT.removesuffix("\\ud800")
    with shown_on_terminal():
        logging.getLogger("bertjax.somewhere").info(odd)
        logging.getLogger("bertjax.somewhere").warning(odd)
    say(f"1\n{shown(ODD)}\x1b")
    out, err = capsys.readouterr()
    assert out == f"{fit}\n1\n{FIT}\\x1b\n" and err == f"warning: {fit}\n"
    library = {path: path.read_text(encoding="utf-8") for path in (Path(__file__).parents[1] / "bertjax").rglob("*.py")}
    assert [path.name for path, source in library.items() if "warnings.warn(" in source] == ["errors.py"]
    printing = [
        path.name for path, source in library.items() if re.search(r"^ +print\((?!.*file=)", source, re.MULTILINE)
    ]
    assert {*printing} <= {"main.py", "terminal.py", "serve.py", "explore.py"}  # which print no text of others
