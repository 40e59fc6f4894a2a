"""Servers behind haproxy, as the documentation has them: what one leaves unanswered, another is asked."""

import concurrent.futures
import os
import shutil
import signal
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from benchmarks.balanced import EXAMPLE, Balanced, check_haproxy, configured
from benchmarks.serving_process import ServingProcess, free_port
from bertjax.errors import BertjaxError

# It answers after a tenth of a second with its name, and is known to be healthy.
SERVER = """
import http.server, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.1)
        self.answer(sys.argv[2].encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_the_example_is_used_as_it_stands() -> None:
    made, example = configured(1, [22, 333]).splitlines(), EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert [line for line in example if line not in made] == [
        "    bind 127.0.0.1:8080",
        "    server one 127.0.0.1:8081",
        "    server two 127.0.0.1:8082",
    ]
    assert [line for line in made if line not in example] == [
        "    bind 127.0.0.1:1",
        "    server s22 127.0.0.1:22",
        "    server s333 127.0.0.1:333",
    ]


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
def test_when_one_dies_the_other_answers_for_it(tmp_path: Path) -> None:
    servers = []
    for name in ("one", "two"):
        port = free_port()
        command = [sys.executable, "-c", SERVER, str(port), name]
        servers.append(ServingProcess(command, os.environ, port, tmp_path / f"{name}.txt"))

    def ask(_: int) -> str:
        with urllib.request.urlopen(f"{both.url}/embed", data=b"{}", timeout=20) as answer:
            return answer.read().decode()

    with Balanced(servers, free_port(), tmp_path) as both, concurrent.futures.ThreadPoolExecutor(8) as clients:
        assert both.memory_bytes > sum(server.memory_bytes for server in servers) > 0
        asked = [clients.submit(ask, number) for number in range(40)]
        while sum(one.done() for one in asked) < 8:
            time.sleep(0.01)
        servers[0].send(signal.SIGKILL)
        answers = [one.result() for one in asked]
        assert {"one", "two"} == set(answers) and ask(0) == "two"
        assert both.end(signal.SIGTERM) in (0, -signal.SIGTERM)
        assert servers[1].end(signal.SIGKILL) == -signal.SIGTERM  # with it


def test_without_haproxy_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BertjaxError, match="haproxy shares the requests, and is not installed"):
        check_haproxy()


def test_servers_end_where_the_balancer_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/haproxy").write_text("#!/bin/sh\necho no luck; exit 1\n")
    (tmp_path / "bin/haproxy").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    port = free_port()
    server = ServingProcess([sys.executable, "-c", SERVER, str(port), "one"], os.environ, port, tmp_path / "one.txt")
    with pytest.raises(BertjaxError, match="saying: no luck"):
        Balanced([server], free_port(), tmp_path).start()
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
