"""A server as a process: it listens, obeys signals, and lets no idle or stuck client keep a connection."""

import asyncio
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bertjax.errors import BertjaxError
from bertjax.serving.app import Server
from bertjax.serving.extra import needed

with needed():
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LONGEST_HEAD = 2**16  # bytes
_SWEEP = 1.0  # seconds from one look at the connections to the next
_SWITCH = 0.0005  # seconds that a thread waits for another's Python: it should not be longer than what is computed
_logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound. Raises BertjaxError where it cannot be."""
    bound = None
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        if bound is not None:
            bound.close()
        reason = getattr(error, "strerror", None) or error
        raise BertjaxError(f"cannot listen on {host} port {port}: {reason}; give another --host or --port") from None
    return bound


def run(server: Server, bound: socket.socket, *, drain: float) -> None:
    """Answers requests until SIGTERM or Ctrl-C; what is under way then has `drain` seconds to end.

    SIGHUP loads every model anew.

    Args:
      bound: the socket to listen on.

    Raises:
      BertjaxError: a model cannot be loaded.
    """
    sys.setswitchinterval(_SWITCH)
    process = make_process(server, drain=drain)
    process.run(sockets=[bound])
    if server.failure is not None:
        raise server.failure


def make_process(server: Server, *, drain: float) -> uvicorn.Server:
    """Returns what listens and answers until its `should_exit` is set; the arguments are those of `run`."""
    limits = server.limits
    config = uvicorn.Config(
        server.app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # what a client does wrong is counted, and not worth a line each
        access_log=False,
        server_header=False,
        timeout_keep_alive=max(1, round(limits.seconds)),
        limit_concurrency=limits.max_connections,
        timeout_graceful_shutdown=max(1, round(drain)),
        backlog=min(limits.max_connections, 2048),
    )
    process = _Process(config, server)

    def stop() -> None:
        process.should_exit = True

    server.on_failure = stop
    return process


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with an end to what a request may have beside its body: heads, trailers, sizes of chunks."""

    _received = _of_body = 0

    def data_received(self, data: bytes) -> None:
        """Takes bytes, or cuts the client off."""
        self._received += len(data)
        super().data_received(data)
        if self._received - self._of_body > _LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def on_message_begin(self) -> None:
        """Counts anew."""
        self._received = self._of_body = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Takes a part of the body."""
        self._of_body += len(body)
        super().on_body(body)


class _Process(uvicorn.Server):
    """uvicorn's server, with a look at its connections now and then, and SIGHUP."""

    def __init__(self, config: uvicorn.Config, server: Server):
        super().__init__(config)
        self._server = server
        self._idle_since: dict[Any, float] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and begins to look."""
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self._server.reload()))
        self._sweeper = asyncio.ensure_future(self._sweep())

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Obeys signals as uvicorn does; but SIGTERM, once obeyed, is no more the process's death."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def _sweep(self) -> None:
        """Closes connections on which no request came whole, or no answer was fetched, for too long.

        uvicorn counts seconds only between an answer and the next request's first byte.
        """
        while True:
            await asyncio.sleep(_SWEEP)
            now, seen = time.monotonic(), self._idle_since
            self._idle_since = {}
            for connection in list(self.server_state.connections):
                assert isinstance(connection, HttpToolsProtocol)
                cycle, transport = connection.cycle, connection.transport
                if cycle is not None and not cycle.response_complete and not transport.is_closing():
                    continue
                since = self._idle_since[connection] = seen.get(connection, now)
                if now - since > self._server.limits.seconds + _SWEEP:
                    transport.abort()
