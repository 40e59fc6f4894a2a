"""What is logged and warned of, as a person sees it."""

import io
import logging
import os
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


def test_what_nobody_reads_is_lost_and_the_work_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe, shown_on_terminal():
        monkeypatch.setattr(sys, "stdout", pipe)
        logger.info("to nobody")
        logger.info("nor this")
        logger.warning("the disk is full")
    assert capsys.readouterr().err == "warning: the disk is full\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_without_room_is_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full, shown_on_terminal():
        monkeypatch.setattr(sys, "stdout", full)
        logger.info("no room")
        logger.info("nor for this")
    assert capsys.readouterr().err == (
        "warning: standard output cannot be written (No space left on device): going on without it\n"
    )
