"""What is logged and warned of, as a person sees it."""

import io
import logging
import sys
import warnings

import pytest
from tqdm import tqdm

from bertjax.cli.terminal import shown_on_terminal

logger = logging.getLogger("bertjax.somewhere")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def say_all() -> None:
    logger.debug("for nobody")
    logger.info("%d tokens", 3)
    logger.warning("the disk is full")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("an old file", stacklevel=1)


def test_lines_go_where_they_belong(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_on_terminal():
        say_all()
    assert capsys.readouterr() == ("3 tokens\n", "warning: the disk is full\nwarning: an old file\n")


def test_library_is_silent_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    parent = logging.getLogger("bertjax")
    before = parent.handlers[:], parent.level, parent.propagate
    with shown_on_terminal():
        pass
    assert (parent.handlers[:], parent.level, parent.propagate) == before
    logger.info("hidden")
    assert capsys.readouterr() == ("", "")


def test_lines_go_above_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    with shown_on_terminal(), tqdm(total=3, file=screen) as bar:
        bar.update()
        say_all()
    shown = screen.getvalue().replace("\r", "\n").splitlines()
    assert [line for line in shown if "|" not in line and line.strip()] == [
        "3 tokens",
        "warning: the disk is full",
        "warning: an old file",
    ]


def test_every_script_is_shown_as_far_as_the_terminal_can(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    with shown_on_terminal():
        logger.info("鹤 is a crane")
    assert ascii_only.buffer.getvalue() == b"? is a crane\n"  # type: ignore[attr-defined]


def test_a_closed_pipe_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with shown_on_terminal(), pytest.raises(BrokenPipeError):
        logger.info("to nobody")
