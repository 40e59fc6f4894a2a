"""Signals: noted while there is work to finish, obeyed at once where there is none, and given back afterwards."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from bertjax.errors import ExitCode
from bertjax.runs.signals import (
    Terminated,
    held_back,
    interrupted_for_sure,
    stopping_on_signals,
    terminated_as_interrupted,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def handlers() -> list:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_work_under_way_is_finished(number: int, capfd: pytest.CaptureFixture) -> None:
    before = handlers()
    with stopping_on_signals() as stop:
        with stop.finishing():
            assert not stop.after_step()
            os.kill(os.getpid(), number)
            assert stop.after_step() and stop.asked and stop.signal == number
            assert handlers() == before  # so that the next one stops at once
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as left:
            stop.leave()
    assert handlers() == before
    assert number == signal.SIGINT or left.value.code == ExitCode.STOPPED
    assert capfd.readouterr().err.count("stopping after this step, then saving") == 1


@pytest.mark.parametrize("number", SIGNALS)
def test_without_work_it_ends_at_once(number: int, capfd: pytest.CaptureFixture) -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as left:
        with stopping_on_signals():
            os.kill(os.getpid(), number)
            raise AssertionError("went on")
    assert handlers() == before
    assert number == signal.SIGINT or left.value.code == ExitCode.STOPPED
    assert "nothing to save" in capfd.readouterr().err


def test_other_threads_are_left_alone() -> None:
    before, seen = handlers(), []

    def run() -> None:
        with stopping_on_signals() as stop, stop.finishing():
            seen.append((handlers(), stop.asked))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


TWICE = """
import os, signal, time
from bertjax.runs.signals import stopping_on_signals, terminated_as_interrupted
number = {number}
with stopping_on_signals() as stop, stop.finishing():
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_second_stops_at_once(number: int) -> None:
    ended = subprocess.run([sys.executable, "-c", TWICE.format(number=int(number))], capture_output=True, timeout=30)
    assert ended.returncode == -number  # which a shell says as 128 + number


EARLY = """
import os, signal, sys
from bertjax.runs.signals import held_back, let_through, stopping_from_the_start
_, code, name, *again = sys.argv
if again:
    stopping_from_the_start("this goes on")
    let_through()
    sys.exit("the signal was lost")
with held_back():
    os.kill(os.getpid(), signal.Signals[name])
    os.execv(sys.executable, [sys.executable, "-S", "-c", code, code, name, "again"])
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_before_anything_has_begun_is_no_failure(name: str) -> None:
    """It comes while the program makes way for itself in another environment."""
    command = [sys.executable, "-S", "-c", EARLY, EARLY, name]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    said = f"stopped by {name}; this goes on\n"
    assert (ended.returncode, ended.stderr) == (ExitCode.STOPPED, said)


def test_what_is_held_back_comes_afterwards() -> None:
    before = handlers()
    with pytest.raises(Terminated), terminated_as_interrupted():
        with held_back():
            os.kill(os.getpid(), signal.SIGUSR1)
            seen = handlers()
        raise AssertionError(f"went on with {seen}")
    assert handlers() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_interrupts_as_ctrl_c_does(number: int) -> None:
    before = handlers()
    with pytest.raises(Terminated), terminated_as_interrupted():
        os.kill(os.getpid(), number)
    assert handlers() == before
    other = threading.Thread(target=lambda: terminated_as_interrupted().__enter__())
    other.start()
    other.join()
    assert handlers() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_amid_a_collection_of_garbage_is_not_lost(number: int, capfd: pytest.CaptureFixture) -> None:
    def interrupt(*_: object) -> None:
        gc.callbacks.remove(interrupt)
        os.kill(os.getpid(), number)

    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as raised:
        with interrupted_for_sure(), stopping_on_signals():
            gc.callbacks.append(interrupt)
            gc.collect()
            time.sleep(10)
    assert number == signal.SIGINT or raised.value.code == ExitCode.STOPPED
    assert sys.unraisablehook is hook and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert "Traceback" not in capfd.readouterr().err
