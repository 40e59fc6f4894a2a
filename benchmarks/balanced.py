"""Several servers behind haproxy, as docs/serving/haproxy.cfg has it, for benchmarks."""

import os
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.serving_process import ServingProcess, free_port, ours
from bertjax.errors import BertjaxError

EXAMPLE = Path(__file__).parents[1] / "docs" / "serving" / "haproxy.cfg"


class Balanced(ServingProcess):
    """A balancer and the servers behind it, which start and end with it.

    Args:
      servers: that it shares the requests among.
      port: on loopback, on which it listens.
      folder: an empty one, for its configuration and what it says.
    """

    def __init__(self, servers: Sequence[ServingProcess], port: int, folder: Path):
        config = folder / "haproxy.cfg"
        config.write_text(configured(port, [server.port for server in servers]), encoding="utf-8")
        super().__init__(["haproxy", "-db", "-f", str(config)], os.environ, port, folder / "haproxy.txt")
        self.servers = servers
        self._started: list[ServingProcess] = []

    def start(self) -> None:
        """Starts the servers, one after the other, and then the balancer."""
        try:
            for server in self.servers:
                server.start()
                self._started.append(server)
            super().start()
        except BaseException:
            self._end_servers(signal.SIGKILL)
            raise
        self.seconds += sum(server.seconds for server in self.servers)

    def end(self, number: signal.Signals) -> int:
        """Ends all, the balancer first, and returns its exit code."""
        code = super().end(number)
        self._end_servers(number)
        return code

    def _end_servers(self, number: signal.Signals) -> None:
        while self._started:
            self._started.pop().end(number)

    @property
    def memory_bytes(self) -> int:
        """Memory that all of them have in use."""
        return super().memory_bytes + sum(server.memory_bytes for server in self.servers)


def balanced(
    model: Path, environment: Mapping[str, str], port: int, folder: Path, number: int, *options: str
) -> Balanced:
    """Returns so many of `bertjax serve` behind haproxy, each on cores of its own where there are as many.

    Args:
      options: of each server.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    servers = []
    for index in range(number):
        server = ours(model, environment, free_port(), folder / f"server {index}.txt", *options)
        if len(cores) >= number and shutil.which("taskset"):
            own = ",".join(map(str, cores[index::number]))
            server.run_under(["taskset", "--cpu-list", own])
        servers.append(server)
    return Balanced(servers, port, folder)


def configured(port: int, servers: Sequence[int]) -> str:
    """Returns the example's configuration for these ports."""
    text = re.sub(r"^    bind .*$", f"    bind 127.0.0.1:{port}", EXAMPLE.read_text(encoding="utf-8"), flags=re.M)
    lines = [line for line in text.splitlines() if not line.startswith("    server ")]
    return "\n".join([*lines, *(f"    server s{port} 127.0.0.1:{port}" for port in servers), ""])


def check_haproxy() -> None:
    """Raises BertjaxError where the balancer is missing."""
    if shutil.which("haproxy") is None:
        raise BertjaxError("haproxy shares the requests, and is not installed: 'apt install haproxy'")
