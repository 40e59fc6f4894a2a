"""Signals that ask a run to stop: Ctrl-C, and what schedulers send before they kill."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from bertjax.errors import ExitCode

_OF_SCHEDULERS = (signal.SIGTERM, signal.SIGUSR1)
_SIGNALS = (signal.SIGINT, *_OF_SCHEDULERS)


class Terminated(KeyboardInterrupt):
    """An interrupt that comes from a scheduler and not from a person."""


class Stop:
    """Tells of a signal. While steps are made it only asks; before and after, it ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.agree: Callable[[bool], bool] = lambda asked: asked  # over several processes: whether any was asked
        self._agreed = self._under_way = False

    @property
    def asked(self) -> bool:
        return self.signal is not None

    def after_step(self) -> bool:
        """Tells whether the step that was dispatched last is to be the run's last; asked once a step."""
        self._agreed = self._agreed or self.agree(self.asked)
        return self._agreed

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """Here there is work to finish: a signal is noted and no more."""
        self._under_way = True
        try:
            yield
        finally:
            self._under_way = False

    def leave(self) -> NoReturn:
        """Ends the process: as Ctrl-C does, or for a scheduler with the code on which it is to start the run again."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(ExitCode.STOPPED)

    def _on_signal(self, number: int) -> None:
        self.signal = number
        # Not print: what the signal interrupted may be in the middle of one.
        if self._under_way:
            os.write(2, b"\nstopping after this step, then saving; the same signal again stops at once\n")
        else:
            os.write(2, b"\nstopped with no step under way, so with nothing to save; --resume goes on from here\n")
            self.leave()


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """Takes the signals over and gives them back. A second one does what it would have done without us.

    In another thread than the main one nothing is taken over, for Python lets no other handle signals.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # None where a library took it over in its own language, as jax.distributed does: that cannot be given back.
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, _: FrameType | None) -> None:
        give_back()
        stop._on_signal(number)

    for number in _SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        give_back()


def stopping_from_the_start(how: str) -> None:
    """From now on SIGTERM and SIGUSR1 end this process at once, with the code of a run that can be gone on with.

    A scheduler may send them in the first second, in which modules are imported and nothing has begun: their default
    would be a failure.

    Args:
      how: to go on.
    """

    def leave(number: int, _: FrameType | None) -> NoReturn:
        os.write(2, f"stopped by {signal.Signals(number).name}; {how}\n".encode())
        os._exit(ExitCode.STOPPED)  # an exception might be taken for a failure of what is imported

    for number in _OF_SCHEDULERS:
        signal.signal(number, leave)


def let_through() -> None:
    """From now on what `held_back` has kept for this program comes, and what schedulers send at all."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_SCHEDULERS)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Inside, what schedulers send waits: also for a program that takes this one's place, until `let_through` there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_SCHEDULERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Inside, SIGTERM and SIGUSR1 interrupt as Ctrl-C does; in another thread than the main one nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> NoReturn:
        raise Terminated

    before = {number: signal.signal(number, interrupt) or signal.SIG_DFL for number in _OF_SCHEDULERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupted_for_sure() -> Iterator[None]:
    """Inside, an interrupt is raised again a moment later where it came amid a collection of garbage, or a destructor.

    Python only prints what is raised there, with a traceback, and goes on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    print_it, before = sys.unraisablehook, signal.getsignal(signal.SIGALRM)

    def raise_later(lost: "sys.UnraisableHookArgs") -> None:
        interrupt = lost.exc_value
        if not isinstance(interrupt, KeyboardInterrupt | SystemExit):
            return print_it(lost)

        def again(*_: object) -> NoReturn:
            raise interrupt

        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    sys.unraisablehook = raise_later
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
        if sys.unraisablehook is raise_later:
            sys.unraisablehook = print_it
