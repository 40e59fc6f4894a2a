"""The group of a run's processes: they meet before JAX is started, and each learns when another one stops.

JAX's coordination ends the processes that are left from C++, by SIGABRT with a page of stack, and as much as 100 s
later; where one is missing or comes twice it does the same. So each process keeps a connection to process 0: it breaks
when a process dies, in whatever way, and within 40 s when a machine is lost. What passes is one JSON object a line:

    from the others    {"process": 1, "of": 4, "host": "node2", "run": ["runs/a", "3f..."]}, then
                       {"failed": why, "code": 2} or {"left": true}
    from process 0     {"go": "node1"} or {"refused": why}, then {"turn": 1, "value": null}, {"stopped": why, "code": 1}
                       or {"left": true}

Process 0 listens until all have come and then leaves its port to JAX. As with JAX's own coordinator, whoever reaches
that port could come as one of the run: it is bound to the address that the others are told, and to no other.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol, TypeVar

from bertjax.errors import BertjaxError, ExitCode, shown
from bertjax.parallel.clusters import Rendezvous

T = TypeVar("T")

_LONGEST_LINE = 4096
_LONGEST_NAME = 512  # characters of a run's
_LAST_WORDS = 2.0  # seconds that process 0 stays, so that the others hear from it and not from JAX


class Run(NamedTuple):
    """A run, told apart from others that might come to the same place, as another step of the same job may."""

    name: str  # such as its run_dir
    digest: str  # of all that its processes are given alike


class Processes(Protocol):
    """The processes of a run, seen from one of them."""

    index: int  # this process, from 0
    size: int
    first: bool  # whether this is process 0
    where: Callable[[], str]  # says, when the run is stopped by another process, where it can be gone on with

    def broadcast(self, make: Callable[[], T]) -> T:
        """Returns in every process what process 0 makes, for which the others wait.

        Args:
          make: called in process 0 alone; returns something that JSON can carry.

        Raises:
          BertjaxError: process 0 took too long.
        """

    def fail(self, why: str, code: int) -> None:
        """Tells the others that this process stops; they stop too.

        Args:
          why: a clause, for their last line.
          code: their exit code.
        """

    def leave(self) -> None:
        """Lets this process end without stopping the others; to be called when all are known to be done."""


class SingleProcess:
    """A run's only process, with nobody to wait for."""

    def __init__(self) -> None:
        self.index, self.size, self.first = 0, 1, True
        self.where: Callable[[], str] = _not_yet

    def broadcast(self, make: Callable[[], T]) -> T:
        """Returns what is made."""
        return make()

    def fail(self, why: str, code: int) -> None:
        """Tells nobody."""

    def leave(self) -> None:
        """Leaves nobody."""


def _not_yet() -> str:
    return "it was not yet training"


_ANY = Run("", "")


class ProcessGroup:
    """Several processes, all of which have come; see `Processes` for what they can do.

    Args:
      rendezvous: where they meet.
      run: what they come for; whoever comes for another one is refused.
      timeout: seconds in which all have to come, and process 0 to make what it broadcasts.

    Raises:
      BertjaxError: they did not come in time, or not as a run of `rendezvous.size`.
    """

    def __init__(self, rendezvous: Rendezvous, timeout: float, run: Run = _ANY):
        self._run = Run(shown(run.name, _LONGEST_NAME), run.digest)
        self.index, self.size, self.first = rendezvous.index, rendezvous.size, rendezvous.index == 0
        self.where: Callable[[], str] = _not_yet
        self._address, self._timeout = f"{rendezvous.host}:{rendezvous.port}", timeout
        self._turn = 0
        self._ended = False
        self._hosts = {rendezvous.index: socket.gethostname()}
        self._writers: dict[int, asyncio.StreamWriter] = {}  # to those that this process is connected with
        self._left: set[int] = set()
        self._listening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="process group", daemon=True).start()
        self._do(self._meet_others(rendezvous) if self.first else self._meet_first(rendezvous))

    def _do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def broadcast(self, make: Callable[[], T]) -> T:
        """Returns in every process what process 0 makes."""
        self._turn += 1
        if not self.first:
            sent: T = self._do(self._wait_for_turn(self._turn))
            return sent
        value = make()
        self._do(self._send_all({"turn": self._turn, "value": value}))
        return value

    def fail(self, why: str, code: int) -> None:
        """Tells the others that this process stops; they stop too."""
        self._do(self._fail(f"{self._name(self.index)} stopped: {why[:1000]}", code))

    def leave(self) -> None:
        """Lets this process end without stopping the others."""
        self._do(self._leave())

    # Meeting.

    async def _meet_others(self, rendezvous: Rendezvous) -> None:
        bind = rendezvous.bind or rendezvous.host
        self._all_here: asyncio.Future[None] = self._loop.create_future()
        try:
            server = await asyncio.start_server(self._receive, bind, rendezvous.port, limit=_LONGEST_LINE)
        except OSError as error:
            raise BertjaxError(
                f"process 0 cannot listen at {bind}:{rendezvous.port} ({_reason(error)}); give "
                "--distributed.coordinator an address of this machine and a free port, or --distributed.bind_address "
                "another address of it"
            ) from error
        try:
            await asyncio.wait_for(self._all_here, self._timeout)
        except TimeoutError:
            missing = ", ".join(str(index) for index in range(self.size) if index not in self._hosts)
            raise await self._refuse(
                f"of {self.size} processes ({rendezvous.told_by}), these did not come to {self._address} in "
                f"{self._timeout:g} s: {missing}; start all of them, or give a longer --distributed.timeout"
            ) from None
        except BertjaxError as error:
            raise await self._refuse(str(error)) from None
        finally:
            server.close()
        await self._send_all({"go": self._hosts[0]})

    async def _refuse(self, why: str) -> BertjaxError:
        self._ended = True
        await self._send_all({"refused": why})
        self._close()
        return BertjaxError(why)

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes one connection to process 0: a process of the run, a stranger, or one too many."""
        hello = await _read(reader)
        index, size, host, run = (hello.get(key) for key in ("process", "of", "host", "run"))
        if not (isinstance(index, int) and isinstance(size, int) and isinstance(host, str) and host.isprintable()):
            writer.close()  # a stranger
            return
        if not (isinstance(run, list) and len(run) == 2 and run[0] == self._run.name):
            await self._send_away(writer, f"process {index} on {host}", run)
            return
        if not 0 < index < size or self._all_here.done():
            writer.close()  # one too many
            return
        objection = None
        if size != self.size:
            objection = f"process 0 was started as one of {self.size}, and process {index} on {host} as one of {size}"
        elif run[1] != self._run.digest:
            objection = f"process {index} on {host} was started with another configuration than process 0"
        elif index in self._hosts:
            objection = f"two processes were started as process {index}, on {self._hosts[index]} and on {host}"
        if objection:
            why = (
                f"{objection}; give each its own --distributed.process_id, and all the same "
                "--distributed.num_processes and configuration"
            )
            await _send(writer, {"refused": why})
            writer.close()
            self._all_here.set_exception(BertjaxError(why))
            return
        self._hosts[index], self._writers[index] = host, writer
        _keep_alive(writer)
        self._listening.add(self._loop.create_task(self._listen(reader, index)))
        if len(self._hosts) == self.size:
            self._all_here.set_result(None)

    async def _send_away(self, writer: asyncio.StreamWriter, who: str, run: Any) -> None:
        """Refuses a process of another run, which changes nothing for this one."""
        theirs = run[0] if isinstance(run, list) and run else "another run"
        why = (
            f"{who} is of {shown(theirs, _LONGEST_NAME)!r}, and at {self._address} is process 0 of {self._run.name!r}, "
            f"on {self._hosts[0]}; give each run a port of its own by --distributed.coordinator or JAX_COORDINATOR_PORT"
        )
        await _send(writer, {"refused": why})
        writer.close()

    async def _meet_first(self, rendezvous: Rendezvous) -> None:
        try:
            async with asyncio.timeout(self._timeout + 1):  # process 0 is to be the one that says who is missing
                reader, writer = await self._connect(rendezvous)
        except TimeoutError as error:
            raise BertjaxError(
                f"process {self.index} could not meet process 0 at {self._address} in {self._timeout:g} s "
                f"({self._why_not}); start it, correct --distributed.coordinator or give a longer --distributed.timeout"
            ) from error
        self._writers[0] = writer
        _keep_alive(writer)
        self._turns: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listening.add(self._loop.create_task(self._listen(reader, 0)))

    async def _connect(self, rendezvous: Rendezvous) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Tries to reach process 0 until it says go."""
        self._why_not = "no answer"
        while True:
            try:
                reader, writer = await asyncio.open_connection(rendezvous.host, rendezvous.port, limit=_LONGEST_LINE)
                host, run = self._hosts[rendezvous.index], list(self._run)
                hello = {"process": rendezvous.index, "of": rendezvous.size, "host": host, "run": run}
                await _send(writer, hello)
                self._why_not = "it still waits for others"
                answer = await _read(reader)
                if "refused" in answer:
                    writer.close()
                    raise BertjaxError(str(answer["refused"]))
                if "go" in answer:
                    self._hosts[0] = answer["go"]
                    return reader, writer
                self._why_not = "what answers there has started without this process, or is no process 0"
                writer.close()
            except OSError as error:
                self._why_not = _reason(error)
            await asyncio.sleep(0.1)

    # After that.

    async def _listen(self, reader: asyncio.StreamReader, index: int) -> None:
        """Hears what another process says, until it leaves or its connection breaks."""
        while said := await _read(reader):
            if "turn" in said:
                self._turns.put_nowait(said)
            elif "left" in said:
                self._left.add(index)
            elif "failed" in said:
                await self._fail(said["failed"], said["code"], end=True)
            elif "stopped" in said:
                self._end(said["stopped"], said["code"])
        if not self.first or self._all_here.done():
            if index not in self._left:
                await self._fail(f"{self._name(index)} died", ExitCode.PEER_LOST, end=True)
        else:  # it may be started again, and come in time
            del self._hosts[index], self._writers[index]

    def _name(self, index: int) -> str:
        return f"process {index} of {self.size}, on {self._hosts[index]},"

    async def _wait_for_turn(self, turn: int) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                said = await self._turns.get()
        except TimeoutError as error:
            raise BertjaxError(
                f"process 0 has not prepared the run in {self._timeout:g} s; run 'bertjax prepare' with the recipe "
                "first, or give a longer --distributed.timeout"
            ) from error
        assert said["turn"] == turn
        return said["value"]

    async def _fail(self, why: str, code: int, *, end: bool = False) -> None:
        """Tells the others, through process 0, that somebody stopped. With `end` this process ends too."""
        if self._ended:
            return
        self._ended = True
        await self._send_all({"stopped": why, "code": code} if self.first else {"failed": why, "code": code})
        if end:
            self._say(why)
        # JAX ends a process that loses its coordinator, with a page of its own: process 0 goes last.
        if self.first and (others := self._listening - {asyncio.current_task()}):
            await asyncio.wait(others, timeout=_LAST_WORDS)
        if end:
            os._exit(code)
        self._close()

    def _end(self, why: str, code: int) -> None:
        """Ends this process from this thread, as the main one may wait in a collective for ever."""
        if not self._ended:
            self._ended = True
            self._say(why)
            os._exit(code)

    def _say(self, why: str) -> None:
        """Writes this process's last line itself: no handler of a log is sure to run before the process ends."""
        start = "\n" if sys.stderr.isatty() else ""  # below the progress bar
        os.write(2, f"{start}bertjax: {shown(why)}; {self.where()}\n".encode())

    async def _leave(self) -> None:
        self._ended = True
        await self._send_all({"left": True})
        self._close()

    def _close(self) -> None:
        for task in self._listening:
            task.cancel()
        for writer in self._writers.values():
            writer.close()

    async def _send_all(self, message: dict[str, Any]) -> None:
        await asyncio.gather(*(_send(writer, message) for writer in self._writers.values()))


async def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # who is gone is told of where its connection is read
        writer.write(json.dumps(message).encode() + b"\n")
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Returns the next message, an empty one at the end, or where what comes is none."""
    try:
        message = json.loads(await reader.readline())
    except (OSError, ValueError):
        return {}
    return message if isinstance(message, dict) else {}


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Has a machine that vanishes without a word noticed: after 20 s of silence it is asked every 5 s, 4 times."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
