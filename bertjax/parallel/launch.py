"""Starts several processes of the program on this machine as one run: to develop with, or without a cluster."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from bertjax.storage.cores import num_cores

_GRACE = 15.0  # seconds in which the others stop by themselves when one has
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def launch(command: Sequence[str], size: int, *, environment: Mapping[str, str]) -> int:
    """Starts a command `size` times, with its `--distributed` options, and waits. Signals go on to all of them.

    Process 0 has this one's output; what the others write to stderr comes with their number before it.

    Args:
      command: the program and its arguments.
      size: processes of the run.
      environment: all of their environment variables; NPROC is added, for XLA's threads.

    Returns:
      The exit code of the first one that failed, 0 where none did.
    """
    coordinator = f"127.0.0.1:{_free_port()}"
    cores = max(1, num_cores() // size)
    # As many threads for XLA in each process as there are cores for it; what is set already stays.
    environment = {"NPROC": str(cores)} | dict(environment)
    processes: list[subprocess.Popen[str]] = []
    where = ("--distributed.coordinator", coordinator, "--distributed.num_processes", str(size))
    with _forwarded(processes):
        for index in range(size):
            # In sessions of their own, or Ctrl-C in a terminal would come to them twice.
            process = subprocess.Popen(
                [*command, *where, "--distributed.process_id", str(index)],
                env=environment,
                start_new_session=True,
                stdout=subprocess.DEVNULL if index else None,
                stderr=subprocess.PIPE if index else None,
                text=True,
                errors="replace",
            )
            processes.append(process)
            if process.stderr is not None:
                threading.Thread(target=_pass_on, args=(process.stderr, index), daemon=True).start()
        return _wait(processes)


def _wait(processes: Sequence[subprocess.Popen[str]]) -> int:
    failed, deadline = 0, float("inf")
    while None in (codes := [process.poll() for process in processes]):
        if not failed and (failed := next(filter(None, codes), 0)):
            deadline = time.monotonic() + _GRACE
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    failed = failed or next(filter(None, codes), 0)
    return failed if failed >= 0 else 128 - failed  # as a shell has it of one that a signal ended


@contextlib.contextmanager
def _forwarded(processes: Sequence[subprocess.Popen[str]]) -> Iterator[None]:
    def forward(number: int, _: object) -> None:
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for process in processes:
            process.kill()  # none is left, unless something went wrong here
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(lines: IO[str], index: int) -> None:
    for line in lines:
        sys.stderr.write(f"[{index}] {line}")
        sys.stderr.flush()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
