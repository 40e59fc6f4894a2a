"""The siege of `benchmarks/stress/serve.py` sees what is wrong: other vectors, and requests that are lost."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from serving_server import TEXTS, Listening

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
        return siege.counts

    with Listening(server) as listening:
        port = listening.socket.getsockname()[1]
        assert counts(port, units_nd).keys() == {"honest", "right", "rightly refused"}
        assert counts(port, wrong_nd).keys() == {"honest", "wrong: another vector", "rightly refused"}
    assert counts(port, units_nd).keys() == {"honest", "lost: ConnectionRefusedError"}
    assert serve.unchunked(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") == b"abcde"
    with pytest.raises(serve.Lost):
        serve.unchunked(b"3\r\nabc")
