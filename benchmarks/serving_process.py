"""`bertjax serve` as a process on loopback, for benchmarks of speed and stress; others' servers likewise."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from bertjax.errors import BertjaxError
from bertjax.storage.interpreter import module_command

_PATIENCE = 180.0  # seconds in which a server must be ready
_GLANCE = 0.05


class ServingProcess:
    """A server that is started when the context is entered, and killed when it is left.

    Args:
      command: that starts it.
      port: on loopback, on which it then listens.
      log: file of what it says.
      health: the path that is answered by 200 when it is ready.
      folder: in which it runs; by default that of this process.

    Attributes:
      seconds: from the start to ready.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        port: int,
        log: Path,
        health: str = "/health",
        folder: Path | None = None,
    ):
        self._command, self._environment, self.port, self._log = list(command), dict(environment), port, log
        self._health, self._folder, self.seconds = health, folder, 0.0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def run_under(self, command: Sequence[str]) -> None:
        """Starts it by a command that takes another one, such as taskset."""
        self._command = [*command, *self._command]

    def __enter__(self) -> "ServingProcess":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(signal.SIGKILL)

    def start(self) -> None:
        """Starts it and waits until it is ready. Raises BertjaxError where it ends or takes too long."""
        began = time.monotonic()
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, cwd=self._folder, stdout=log, stderr=log
            )
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > began + _PATIENCE:
                self.end(signal.SIGKILL)
                said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
                raise BertjaxError(f"the server did not become ready, saying: {said[-1]}; see {self._log}")
            time.sleep(_GLANCE)
        self.seconds = time.monotonic() - began

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals) -> int:
        """Ends it and returns its exit code."""
        self._process.send_signal(number)
        return self._process.wait(_PATIENCE)

    @property
    def memory_bytes(self) -> int:
        """Memory that it has in use, with all processes that it started."""
        pages = 0
        for process in [self._process.pid, *_descendants(self._process.pid)]:
            try:
                pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
            except OSError:
                continue
        return pages * os.sysconf("SC_PAGE_SIZE")

    def text(self, path: str) -> str:
        """Returns what it answers to GET."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            body: bytes = answer.read()
        return body.decode()

    def _ready(self) -> bool:
        try:
            self.text(self._health)
        except (urllib.error.URLError, OSError):
            return False
        return True


def free_port() -> int:
    """Returns a port of loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def ours(folder: Path, environment: Mapping[str, str], port: int, log: Path, *options: str) -> ServingProcess:
    """Returns `bertjax serve` of a model, called model."""
    command = module_command("bertjax", "serve", f"model={folder}", "--port", str(port), *options)
    return ServingProcess(command, environment, port, log)


def _descendants(process: int) -> list[int]:
    """Returns the processes that one has started, and those that these have."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in _descendants(child))]
