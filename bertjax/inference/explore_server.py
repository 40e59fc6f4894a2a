"""The page of `bertjax explore`, served to this machine alone.

Only loopback is listened on. Another site in the same browser can still send requests there, as itself or by a name of
its own that it lets point here: so Host and Origin must be ours, and questions JSON, which no form sends.
"""

import http.server
import json
import logging
import secrets
import socketserver
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, Protocol

from bertjax.errors import BertjaxError
from bertjax.inference.explore import LONGEST_TEXT, Explorer
from bertjax.runs.pages import render

_HOST = "127.0.0.1"
_LONGEST_BODY = 64 * 1024
_SECONDS = 30  # in which a request must have come
_API = "/api/"
_logger = logging.getLogger(__name__)


class Headers(Protocol):
    """Headers of a request, found whatever their case."""

    def get(self, name: str, /) -> str | None:
        """Returns a header's value."""


class Response(NamedTuple):
    """What a request is answered with."""

    status: HTTPStatus
    kind: str
    body: str
    policy: str = "default-src 'none'"


def respond(
    explorer: Explorer, port: int, method: str, path: str, headers: Headers, body: bytes, *, name: str
) -> Response:
    """Answers a request.

    Args:
      port: where the server is.
      body: all of it.
      name: what the page calls the model.
    """
    hosts = {f"{host}:{port}" for host in (_HOST, "localhost")}
    origin = headers.get("Origin")
    if headers.get("Host") not in hosts or (origin and origin.removeprefix("http://") not in hosts):
        return _refused(HTTPStatus.FORBIDDEN, f"this page is served to http://{_HOST}:{port} alone")
    if path == "/":
        if method != "GET":
            return _refused(HTTPStatus.METHOD_NOT_ALLOWED, "the page is read by GET")
        return _page(explorer, name)
    if not path.startswith(_API):
        return _refused(HTTPStatus.NOT_FOUND, f"there is nothing at {path[:100]!r}; the page is at /")
    if method != "POST":
        return _refused(HTTPStatus.METHOD_NOT_ALLOWED, "questions are asked by POST")
    if (headers.get("Content-Type") or "").partition(";")[0].strip().lower() != "application/json":
        return _refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a question is JSON; say so by Content-Type: application/json"
        )
    try:
        asked = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return _refused(HTTPStatus.BAD_REQUEST, "the question is not JSON")
    try:
        answer = explorer.answer(path.removeprefix(_API), asked)
    except BertjaxError as error:
        return _refused(HTTPStatus.BAD_REQUEST, str(error))
    except Exception as error:  # the page says so, and goes on
        _logger.warning(f"a question failed: {type(error).__name__}: {error}")
        return _refused(HTTPStatus.INTERNAL_SERVER_ERROR, f"the question failed ({type(error).__name__})")
    return Response(HTTPStatus.OK, "application/json", json.dumps(answer, allow_nan=False))


def make_server(explorer: Explorer, port: int, *, name: str) -> http.server.ThreadingHTTPServer:
    """Returns a server that listens on loopback; `serve_forever` of it answers, each request in a thread of its own.

    Args:
      port: 0 takes a free one.
      name: what the page calls the model.

    Raises:
      BertjaxError: the port is taken, or not allowed.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                self._send(_refused(HTTPStatus.LENGTH_REQUIRED, "a question comes with its Content-Length"))
            elif int(length) > _LONGEST_BODY:
                self._send(_refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"give {_LONGEST_BODY:,} bytes at most"))
            else:
                self._answer(self.rfile.read(int(length)))

        def _answer(self, body: bytes) -> None:
            self._send(respond(explorer, port, self.command, self.path, self.headers, body, name=name))

        def _send(self, response: Response) -> None:
            body = response.body.encode("utf-8")
            self.send_response(response.status)
            self.send_header("Content-Type", f"{response.kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", f"{response.policy}; frame-ancestors 'none'")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing of each request."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True  # Ctrl-C does not wait for an answer under way

        def server_bind(self) -> None:
            socketserver.TCPServer.server_bind(self)  # http.server's looks a name up, which may take seconds
            self.server_name, self.server_port = _HOST, int(self.server_address[1])

        def handle_error(self, request: object, client_address: object) -> None:
            """Says nothing of a browser that has gone."""

    try:
        server = Server((_HOST, port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BertjaxError(
            f"cannot listen on port {port}: {reason}; give another by --port, or 0 for a free one"
        ) from None
    port = server.server_port
    return server


def _page(explorer: Explorer, name: str) -> Response:
    nonce = secrets.token_urlsafe(16)
    page = render(
        "explore.html",
        folders=[Path(__file__).parent / "templates"],
        name=name,
        corpus=explorer.corpus,
        mask=explorer.encoder.tokenizer.rules.special[-1],
        longest=LONGEST_TEXT,
        nonce=nonce,
    )
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return Response(HTTPStatus.OK, "text/html", page, policy)


def _refused(status: HTTPStatus, why: str) -> Response:
    return Response(status, "application/json", json.dumps({"error": why}))
