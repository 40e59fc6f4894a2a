"""Chaos for `bertjax serve`: honest requests among clients that vanish, trickle and send garbage; kills and restarts.

Each answer is compared with `Encoder.encode`, and every request is accounted for.
"""

import asyncio
import base64
import collections
import gzip
import json
import math
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.balanced import balanced
from benchmarks.serving_process import ServingProcess, ours
from bertjax.inference.encoder import Encoder

CLIENTS = 32
_MANY = 64  # texts of the longest honest request
_HOSTILE = 0.1  # share of the clients' turns
_WITHIN = 1e-5  # of a number of a vector of length 1
_PATIENCE = 120.0  # seconds in which an honest request must be answered
_BEFORE_A_STOP = 60.0  # seconds at most; all that is left follows the second stop
_GLANCES = 200  # at the memory, in that last part


class Lost(Exception):
    """The connection ended without an answer."""


class Siege:
    """Clients of one server, and what became of their requests.

    Args:
      texts: that are asked for, none longer than the model reads.
      units_nd: their vectors, of length 1, by the library.

    Attributes:
      pace: texts that all clients together ask for in a second at most; as many as they can where it is infinite.
    """

    def __init__(self, server: ServingProcess, texts: list[str], units_nd: np.ndarray, seed: int):
        self._server, self._texts, self._units_nd = server, texts, units_nd
        self._random, self.counts = random.Random(seed), collections.Counter[str]()
        self.stops, self.down = 0, False  # how often what answers was stopped, and whether it is now
        self.seconds = collections.defaultdict[int, list[float]](list)  # until the right answer, by number of texts
        self.answered, self.pace, self._next_turn = 0, math.inf, 0.0  # texts, texts a second, seconds

    async def run(self, seconds: float) -> None:
        """Lets all clients take turns for so long."""
        end = time.monotonic() + seconds
        await asyncio.gather(*(self._client(end) for _ in range(CLIENTS)))

    async def _client(self, end: float) -> None:
        while time.monotonic() < end:
            if self.down:
                await asyncio.sleep(0.05)
            elif self._random.random() < _HOSTILE:
                await self._hostile()
            else:
                await self._honest()

    async def _honest(self) -> None:
        """Asks for vectors, or for what is refused with good reason; the answer must be the right one."""
        ask = self._random.choice((self._embed, self._embed, self._openai, self._openai, self._mistake))
        chosen = self._choose()
        await self._own_turn(0 if ask == self._mistake else len(chosen))
        stops, began = self.stops, time.monotonic()
        self.counts["honest"] += 1
        try:
            said = await asyncio.wait_for(ask(chosen), _PATIENCE)
        except (Lost, OSError, TimeoutError) as error:
            # What a kill cuts off is lost by right; else nothing may be.
            stopped = self.stops != stops or self.down
            self.counts["cut off by a stop" if stopped else f"lost: {type(error).__name__}"] += 1
            return
        self.counts[said] += 1
        if said == "right":
            self.seconds[len(chosen)].append(time.monotonic() - began)
            self.answered += len(chosen)

    async def _own_turn(self, num_texts: int) -> None:
        """Waits until the pace allows so many texts; what was missed by more than a second is not made up for."""
        now = time.monotonic()
        turn = max(self._next_turn, now - 1)
        self._next_turn = turn + num_texts / self.pace
        await asyncio.sleep(max(turn - now, 0))

    async def _embed(self, chosen: list[int]) -> str:
        status, body = await self._post("/embed", {"inputs": [self._texts[number] for number in chosen]})
        return self._compared(chosen, status, lambda: json.loads(body))

    async def _openai(self, chosen: list[int]) -> str:
        form = self._random.choice(("float", "base64"))
        asked = {"input": [self._texts[number] for number in chosen], "encoding_format": form}
        status, body = await self._post("/v1/embeddings", asked)

        def vectors() -> list[Any]:
            told = [one["embedding"] for one in json.loads(body)["data"]]
            return [np.frombuffer(base64.b64decode(one), "<f4") for one in told] if form == "base64" else told

        return self._compared(chosen, status, vectors)

    def _choose(self) -> list[int]:
        several = self._random.choice((1, 1, 1, 1, 2, 3, 8, _MANY))
        return [self._random.randrange(len(self._texts)) for _ in range(several)]

    def _compared(self, chosen: list[int], status: int, vectors: Callable[[], list[Any]]) -> str:
        if status in (429, 503):
            return f"sent away by {status}"
        if status != 200:
            return f"wrong: status {status}"
        difference = np.abs(np.array(vectors(), np.float32) - self._units_nd[chosen]).max()
        return "right" if difference < _WITHIN else "wrong: another vector"

    async def _mistake(self, _: list[int]) -> str:
        said, expected = self._random.choice(
            (
                ({"inputs": ""}, 400),
                ({"inputs": 3}, 422),
                ({"inputs": "a " * 20_000}, 413),
                ({"inputs": ["a"] * 3000}, 413),
                ({"inputs": "a", "model": "other"}, 404),
                ({"inputs": [[1, -5]]}, 422),
                ({"inputs": "a", "dimensions": 10**9}, 422),
            )
        )
        status = (await self._post("/embed", said))[0]
        return "rightly refused" if status == expected else f"wrong: status {status} in place of {expected}"

    async def _hostile(self) -> None:
        """Does what no client should; whatever comes of it, the server must live."""
        whole = json.dumps({"inputs": [self._texts[number] for number in self._choose()]}).encode()
        ways: dict[str, Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = {
            "vanished after asking": lambda _, out: self._say(out, request("/embed", whole)),
            "vanished amid a body": lambda _, out: self._say(out, request("/embed", whole)[: -len(whole) // 2]),
            "vanished amid a head": lambda _, out: self._say(out, b"POST /embed HT"),
            "sent garbage": lambda _, out: self._say(out, self._random.randbytes(2000)),
            "sent deep JSON": lambda _, out: self._say(out, request("/embed", b'{"inputs":' + b"[" * 500_000)),
            "sent a bomb": lambda _, out: self._say(
                out, request("/embed", gzip.compress(b" " * 10**6), b"Content-Encoding: gzip\r\n")
            ),
            "announced too much": lambda _, out: self._say(out, request("/embed", b"{}", length=10**12)),
            "trickled": self._trickle,
            "did not read": self._do_not_read,
        }
        name = self._random.choice(list(ways))
        try:
            reading, writing = await asyncio.open_connection("127.0.0.1", self._server.port)
            try:
                await ways[name](reading, writing)
            finally:
                writing.transport.abort()
        except OSError:
            pass
        self.counts[f"hostile: {name}"] += 1

    async def _say(self, out: asyncio.StreamWriter, data: bytes) -> None:
        out.write(data)
        await out.drain()
        await asyncio.sleep(self._random.random() * 0.05)

    async def _trickle(self, _: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        for byte in request("/embed", b'{"inputs": "a"}')[:40]:
            out.write(bytes([byte]))
            await asyncio.sleep(0.01)

    async def _do_not_read(self, _: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        out.write(request("/embed", json.dumps({"inputs": self._texts[:64]}).encode()))
        await asyncio.sleep(1)

    async def _post(self, path: str, asked: Any) -> tuple[int, bytes]:
        reading, writing = await asyncio.open_connection("127.0.0.1", self._server.port, limit=2**24)
        try:
            writing.write(request(path, json.dumps(asked).encode(), b"Connection: close\r\n"))
            await writing.drain()
            answer = await reading.read()
        finally:
            writing.transport.abort()
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        lengths = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
        if not head.startswith(b"HTTP/1.1 ") or (lengths and len(body) != lengths[0]):
            raise Lost
        if not lengths:  # sent in parts
            body = unchunked(body)
        return int(head.split()[1]), body


def request(path: str, body: bytes, headers: bytes = b"", length: int | None = None) -> bytes:
    """Returns the bytes of a POST."""
    length = len(body) if length is None else length
    said = b"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % length
    return b"POST %b HTTP/1.1\r\n%b%b\r\n%b" % (path.encode(), said, headers, body)


def unchunked(body: bytes) -> bytes:
    """Returns a body that came in chunks as one. Raises Lost where its end is missing."""
    parts: list[bytes] = []
    while True:
        size, found, rest = body.partition(b"\r\n")
        if not found:
            raise Lost
        number = int(size, 16)
        if not number:
            return b"".join(parts)
        parts.append(rest[:number])
        body = rest[number + 2 :]


def besiege(
    model: Path,
    texts: list[str],
    folder: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    port: int,
    seconds: float,
    seed: int,
    load: float | None = None,
    replicas: int | None = None,
) -> dict[str, Any]:
    """Returns the report: counts of requests, memory, and whether all is well.

    The server is killed after a third of the time, a minute at most, and asked to end after as much again; each time it
    is started again, and then left alone.

    Args:
      load: share of the texts a second answered before the first stop that clients ask for afterwards; by default as
        many as they can.
      replicas: so many servers are besieged through haproxy, and one of them is stopped while the others answer.
    """
    say(f"encoding {len(texts):,} texts with the library")
    units_nd = Encoder.load(model).encode(texts, normalize=True)
    memory: list[int] = []
    exits: list[int] = []
    before = min(seconds / 3, _BEFORE_A_STOP)
    options = ("--max-waiting-tokens", "20000")
    # As users have it: told nothing of malloc, the server first starts itself anew.
    environment = {name: value for name, value in environment.items() if name != "GLIBC_TUNABLES"}
    if replicas is None:
        besieged = stopped = ours(model, environment, port, folder / "server.txt", *options)
        servers = [stopped]
    else:
        besieged = balanced(model, environment, port, folder, replicas, *options)
        servers = list(besieged.servers)
        stopped = servers[0]
    with besieged:
        siege = Siege(besieged, texts, units_nd, seed)
        top = 0.0  # texts a second, when nothing holds the clients back
        for number, stop in enumerate((signal.SIGKILL, signal.SIGTERM), 1):
            say(f"part {number} of 3: {CLIENTS} clients for {before:.0f} s")
            rate = asyncio.run(_until_stopped(siege, stopped, before, stop, exits, alone=replicas is None))
            stopped.start()
            siege.down = False
            if number == 1:
                top = rate
                siege.pace = math.inf if load is None else load * top
        rest = seconds - 2 * before
        say(f"part 3 of 3: {CLIENTS} clients for {rest:.0f} s" + (f", {siege.pace:.0f} texts a second" if load else ""))
        siege.seconds.clear()
        siege.answered = 0
        asyncio.run(_undisturbed(siege, besieged, rest, memory))
        time.sleep(1)  # what has vanished is noticed
        figures = [_metrics(server) for server in servers]
    told = {"bench": "siege", "seconds": seconds, "seed": seed, "replicas": replicas, "load": load}
    told |= {"top_texts_per_s": top, "texts_per_s": siege.answered / rest, "undisturbed_s": rest}
    return told | _report(siege, figures, memory, exit_code=exits[-1])


def _report(siege: Siege, figures: list[dict[str, float]], memory: list[int], *, exit_code: int) -> dict[str, Any]:
    """Returns what became of the requests; times and memory are those of the part that nothing stopped."""
    counts = dict(sorted(siege.counts.items()))
    bad = sum(count for name, count in counts.items() if name.startswith(("wrong", "lost")))
    told = sum(count for name, count in counts.items() if name != "honest" and not name.startswith("hostile"))
    waiting = sum(of_server["bertjax_waiting_tokens"] for of_server in figures)
    one, many = (np.percentile(1000 * np.array(siege.seconds[size] or [0.0]), (50, 99)).tolist() for size in (1, _MANY))
    tenth = -(-len(memory) // 10)
    return {
        "counts": counts,
        "adds_up": told == counts["honest"],
        "clients_gone": sum(of_server["bertjax_clients_gone_total"] for of_server in figures),
        "waiting_tokens": waiting,
        "exit_code_after_sigterm": exit_code,
        "memory_bytes": memory,
        "memory_growth": float(np.median(memory[-tenth:]) / np.median(memory[:tenth])) - 1,
        "one_text_ms": one,
        "many_texts_ms": many,
        "well": not bad and told == counts["honest"] and waiting == 0 and exit_code == 0 and counts.get("right", 0) > 0,
    }


async def _until_stopped(
    siege: Siege, server: ServingProcess, seconds: float, stop: signal.Signals, exits: list[int], *, alone: bool
) -> float:
    """Lets the clients take turns, and stops the server before they are done; if it is not alone, amid them.

    Returns the texts answered a second before the stop.
    """
    attack, began, answered = asyncio.ensure_future(siege.run(seconds)), time.monotonic(), siege.answered
    await asyncio.sleep((0.9 if alone else 0.5) * seconds)
    rate = (siege.answered - answered) / (time.monotonic() - began)
    siege.down, siege.stops = alone, siege.stops + (alone and stop == signal.SIGKILL)
    if alone and stop == signal.SIGTERM:  # what is under way is answered; what comes later finds no server
        await asyncio.sleep(0.1)
    exits.append(await asyncio.to_thread(server.end, stop))
    await attack
    return rate


async def _undisturbed(siege: Siege, server: ServingProcess, seconds: float, memory: list[int]) -> None:
    """Lets the clients take turns, and looks at the server's memory meanwhile."""
    attack = asyncio.ensure_future(siege.run(seconds))
    while not attack.done():
        await asyncio.wait([attack], timeout=seconds / _GLANCES)
        memory.append(server.memory_bytes)
    await attack


def _metrics(server: ServingProcess) -> dict[str, float]:
    lines = [line for line in server.text("/metrics").splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def render(report: dict[str, Any]) -> str:
    """Returns the report as lines."""
    what = "" if report["replicas"] is None else f"one of {report['replicas']} servers behind haproxy "
    lines = [
        f"{CLIENTS} clients, {report['seconds']:.0f} s, seed {report['seed']}; {what}killed once, asked to end once"
    ]
    lines += [f"{count:>8,}  {name}" for name, count in report["counts"].items()]
    lines.append(f"exit code after SIGTERM: {report['exit_code_after_sigterm']}")
    asked = "" if report["load"] is None else f", of which {report['load']:.0%} were to be asked for then"
    lines.append(f"texts answered a second: {report['top_texts_per_s']:.0f} before the first stop{asked}")
    lines.append(f"the last {report['undisturbed_s']:,.0f} s, with no stop: {report['texts_per_s']:.0f} texts a second")
    for what, key in (("one text", "one_text_ms"), (f"{_MANY} texts", "many_texts_ms")):
        median, p99 = report[key]
        lines.append(f"requests of {what} were answered after {median:,.0f} ms (median), 99% within {p99:,.0f} ms")
    sizes = [size / 2**20 for size in report["memory_bytes"]]
    lines.append(
        f"memory meanwhile: {sizes[0]:,.0f} MiB first, {sizes[-1]:,.0f} last, {max(sizes):,.0f} at most, "
        f"{report['memory_growth']:+.1%} from the first tenth of that time to the last; "
        f"waiting at the end: {report['waiting_tokens']:.0f}"
    )
    lines.append("all is well" if report["well"] else "NOT WELL")
    return "\n".join(lines)
