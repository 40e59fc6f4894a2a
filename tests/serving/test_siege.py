"""The siege of `benchmarks/stress/serve.py` sees what is wrong: other vectors, and requests that are lost."""

import asyncio
import signal
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from serving_server import TEXTS, Listening

from benchmarks.__main__ import main
from benchmarks.stress import serve
from bertjax.serving.app import Server


def test_it_counts_what_is_right_wrong_and_lost(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_HOSTILE", 0.0)
    units_nd = server.models.encoder("tiny").encoder.encode(TEXTS, normalize=True)
    wrong_nd = np.roll(units_nd, 1, axis=0)

    def counts(port: int, vectors_nd: np.ndarray) -> dict[str, int]:
        process: Any = SimpleNamespace(port=port)
        siege = serve.Siege(process, TEXTS, vectors_nd, seed=0)
        asyncio.run(siege.run(0.1))
        assert sum(siege.counts.values()) == 2 * siege.counts["honest"] > 0
        assert sum(map(len, siege.seconds.values())) == siege.counts["right"]
        return siege.counts

    with Listening(server) as listening:
        port = listening.socket.getsockname()[1]
        assert counts(port, units_nd).keys() == {"honest", "right", "rightly refused"}
        assert counts(port, wrong_nd).keys() == {"honest", "wrong: another vector", "rightly refused"}
    assert counts(port, units_nd).keys() == {"honest", "lost: ConnectionRefusedError"}
    assert serve.unchunked(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") == b"abcde"
    with pytest.raises(serve.Lost):
        serve.unchunked(b"3\r\nabc")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--replicas", "1"], "--replicas 1 is impossible; give 2 to 64"),
        (["--replicas", "2"], "haproxy shares the requests, and is not installed"),
        (["--seconds", "1"], "--seconds 1 is impossible; give 3 or more"),
        (["--load", "80"], "--load 80 is impossible; give a share, such as 0.8"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert main(["siege", *options]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_one_of_several_is_stopped_while_the_others_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[tuple[int, int, bool]] = []

    class Process:
        def end(self, number: int) -> int:
            stopped.append((number, siege.stops, siege.down))
            return -number

    class Siege(serve.Siege):
        async def run(self, seconds: float) -> None:
            self.answered += 7
            await asyncio.sleep(seconds)
            self.answered += 1000  # after the stop

    process: Any = Process()
    siege = Siege(process, [], np.zeros(0), seed=0)
    exits: list[int] = []
    for alone in (True, False):
        for number in (signal.SIGKILL, signal.SIGTERM):
            siege.down = False
            rate = asyncio.run(serve._until_stopped(siege, process, 0.1, number, exits, alone=alone))
            assert 0 < rate <= 7 / 0.05
    assert exits == [-9, -15, -9, -15]
    assert stopped == [(9, 1, True), (15, 1, True), (9, 1, False), (15, 1, False)]


def test_at_a_pace_texts_are_asked_for_evenly_and_memory_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, int]] = []

    class Siege(serve.Siege):
        async def _embed(self, chosen: list[int]) -> str:
            asked.append((time.monotonic(), len(chosen)))
            return "right"

        _openai = _embed

        async def _mistake(self, _: list[int]) -> str:
            await asyncio.sleep(0.01)
            return "rightly refused"

    monkeypatch.setattr(serve, "_HOSTILE", 0.0)
    process: Any = SimpleNamespace(memory_bytes=2**20)
    siege = Siege(process, TEXTS, np.zeros(0), seed=0)
    siege.pace = 1000.0
    memory: list[int] = []
    asyncio.run(serve._undisturbed(siege, process, 2.0, memory))
    assert memory == [2**20] * len(memory) and len(memory) > 20
    # A second's texts that were missed before it began, and those of two seconds; one more request for each that waits.
    assert 1000 < siege.answered == sum(num_texts for _, num_texts in asked) <= 3000 + 64 * serve.CLIENTS
    later = sum(num_texts for moment, num_texts in asked if moment > asked[0][0] + 1)
    assert 0 < later <= 2000 + 64 * serve.CLIENTS  # however late this process was
