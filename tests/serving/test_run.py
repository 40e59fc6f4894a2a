"""A server that listens, on loopback: slow and stuck clients, and how it ends."""

import json
import socket
import threading
from collections.abc import Iterator

import pytest
from serving_server import Listening

from bertjax.errors import BertjaxError
from bertjax.serving import run
from bertjax.serving.app import Server
from bertjax.serving.bodies import Answers
from bertjax.serving.errors import Refused
from bertjax.serving.models import Models, Origin
from bertjax.serving.work import Limits


@pytest.fixture
def impatient(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    monkeypatch.setattr(run, "_SWEEP", 0.02)
    with Listening(server, limits=Limits(seconds=0.1)) as listening:
        yield listening


HEAD = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_who_sends_nothing_whole_is_cut_off(impatient: Listening) -> None:
    with impatient.connect() as silent, impatient.connect() as half, impatient.connect() as trickling:
        half.sendall(HEAD[:20])
        trickling.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        for client in (silent, half):
            try:
                assert client.recv(100) == b""
            except ConnectionResetError:
                pass
        said = trickling.recv(1000)
        assert said.startswith(b"HTTP/1.1 408 ") and b"did not come within 0.1 s" in said


def test_garbage_is_answered_by_400_and_the_next_one_by_vectors(impatient: Listening) -> None:
    with impatient.connect() as garbage:
        garbage.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not HTTP\r\n\r\n")
        assert garbage.recv(1000).startswith(b"HTTP/1.1 400 ")
    body = json.dumps({"inputs": "a crane"}).encode()
    with impatient.connect() as client:
        client.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ") and len(json.loads(answer.partition(b"\r\n\r\n")[2])[0]) == 16


def test_it_ends_after_what_is_under_way(server: Server) -> None:
    listening, body = Listening(server), json.dumps({"inputs": ["a crane is flying"] * 400}).encode()
    with listening, listening.connect() as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body[:-1]))
        while not listening.process.server_state.tasks:
            pass
        listening.process.should_exit = True  # as SIGTERM does, with a request half here
        client.sendall(body[-1:])
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ") and len(json.loads(answer.partition(b"\r\n\r\n")[2])) == 400


def test_a_port_that_is_taken_and_a_model_that_is_none(tmp_path: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BertjaxError, match=f"cannot listen on 127.0.0.1 port {port}"):
            run.listen("127.0.0.1", port)
    with run.listen("127.0.0.1", 0) as bound:
        with pytest.raises(BertjaxError, match="is not a run's folder nor a Hugging Face one"):
            run.run(Server(Models([Origin("none", str(tmp_path))]), Limits()), bound, drain=1)


def test_a_head_without_end_is_cut_off(impatient: Listening) -> None:
    with impatient.connect() as client:
        client.sendall(HEAD + b"X: ")
        said = b""
        try:
            for _ in range(200):
                client.sendall(b"a" * 2**14)
            said = client.recv(1000)
        except OSError:  # it is closed already
            pass
        assert said.startswith(b"HTTP/1.1 400 ") or not said
    with impatient.connect() as client:  # a long body in large chunks is none
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        body = json.dumps({"inputs": "a crane", "other": "a" * 500_000}).encode()
        for start in range(0, len(body), 1000):
            part = body[start : start + 1000]
            client.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        client.sendall(b"0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_answers_that_are_not_fetched_have_a_limit_together() -> None:
    answers = Answers(Limits(max_answers=10**6))
    with answers.room(40_000) as sent:
        with answers.room(10):  # short ones do not count
            pass
        with pytest.raises(Refused, match="too many long answers"), answers.room(10_000):
            pass
    sent()
    with pytest.raises(ValueError), answers.room(40_000):
        raise ValueError
    with answers.room(10**6):  # alone it may be longer
        pass


def test_an_answer_that_is_not_fetched_is_given_up(impatient: Listening) -> None:
    impatient.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(impatient.socket.getsockname())
        body = json.dumps({"inputs": ["he"] * 2000}).encode()
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        assert client.recv(10) == b"HTTP/1.1 2"  # and no more, until the server has given up
        process = impatient.process
        while process.server_state.connections:
            threading.Event().wait(0.01)
    assert impatient.server._answers._held == 0
