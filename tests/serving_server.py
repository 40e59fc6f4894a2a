"""A tiny model that makes vectors and guesses words, served in this process: nothing listens."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jax
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.data.targets import Labels, Scores
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.folder import write_folder
from bertjax.hub.task_head import TaskHead
from bertjax.models.bert import Bert
from bertjax.serving import run
from bertjax.serving.app import Server
from bertjax.serving.guard import Guard
from bertjax.serving.models import Models, Origin
from bertjax.serving.work import Limits

TEXTS = ["a crane is flying", "he just left", "a crane driver came"]
LONGEST = 40
Ask = Callable[..., httpx2.Response]


def write_encoder(folder: Path, seed: int = 0, longest: int = LONGEST) -> Path:
    tokenizer = Tokenizer.train(TEXTS, min_frequency=1)
    config = BertConfig(tokenizer.vocab_size, 16, 1, 2, 32, longest, init_scale=0.2)
    params = jax.device_get(drawn_params(Bert(config), seed=seed))
    write_folder(config, params, tokenizer, folder, card="")
    return folder


@contextlib.contextmanager
def started(*origins: Origin, limits: Limits | None = None, **how: Any) -> Iterator[Server]:
    """A server whose models are loaded on one device."""
    server = Server(Models(list(origins)), limits or Limits(max_inputs=64, max_body=20_000), **how)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bertjax.inference.engine.local_devices", lambda: jax.local_devices()[:1])
        server.models.load()
    server.batcher.start()
    try:
        yield server
    finally:
        server.batcher.end()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    return {"tiny": write_encoder(folder / "tiny")} | write_heads(folder)


@pytest.fixture(scope="session")
def server(folders: dict[str, Path]) -> Iterator[Server]:
    with started(*(Origin(name, str(path), batch_tokens=LONGEST) for name, path in folders.items())) as server:
        yield server


def asked(server: Server, *requests: tuple[str, Any], **headers: str) -> list[httpx2.Response]:
    """The answers to requests that are sent at once: GET, or POST where there is a body."""

    async def ask() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(app=server.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", headers=headers) as client:

            async def one(path: str, body: Any) -> httpx2.Response:
                if body is None:
                    return await client.get(path)
                if isinstance(body, bytes):
                    return await client.post(path, content=body, headers={"Content-Type": "application/json"} | headers)
                return await client.post(path, json=body)

            return await asyncio.gather(*(one(*request) for request in requests))

    return asyncio.run(ask())


@pytest.fixture
def ask(server: Server) -> Ask:
    return lambda path, body=None, **headers: asked(server, (path, body), **headers)[0]


def write_heads(folder: Path) -> dict[str, Path]:
    """Models with each kind of head, by the kind."""
    tokenizer = Tokenizer.train(TEXTS, min_frequency=1)
    config = BertConfig(tokenizer.vocab_size, 16, 1, 2, 32, 16, init_scale=0.2)
    params = jax.device_get(drawn_params(Bert(config), seed=3))
    params = {part: leaves for part, leaves in params.items() if part not in ("mlm", "nsp")}
    heads: list[TaskHead] = [
        TaskHead("classify", Labels(("no", "yes", "perhaps"))),
        TaskHead("rerank", Scores()),
        TaskHead("tag", Labels(("O", "B-bird", "I-bird"))),
    ]
    for seed, head in enumerate(heads):
        rng, size = np.random.default_rng(seed), head.targets.num_outputs
        kernel, bias = rng.normal(size=(16, size)), rng.normal(size=size)
        classifier = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
        write_folder(config, params | {"classifier": classifier}, tokenizer, folder / head.kind, card="", head=head)
    return {head.kind: folder / head.kind for head in heads}


class Listening:
    """A server in a thread; its models are those of another one."""

    def __init__(self, served: Server, guard: Guard | None = None, *, limits: Limits | None = None):
        self.server = Server(served.models, limits or Limits(), guard)
        self.socket = run.listen("127.0.0.1", 0)
        self.process = run.make_process(self.server, drain=5)
        self._thread = threading.Thread(target=self.process.run, kwargs={"sockets": [self.socket]})

    def __enter__(self) -> "Listening":
        self.socket.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.socket.getsockname(), timeout=10)
        return client
