"""A stand-in for the hub, on loopback: the routes that it documents, for repositories of files given as bytes."""

import contextlib
import hashlib
import json
import re
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_FILE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_WRITE = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)/(?P<what>preupload|commit)/(?P<revision>[^/]+)")
_API = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?")


class Hub:
    """Repositories by name: their files by path. What it is asked is in `asked`; faults are set on it."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.revisions = {"main": COMMIT, COMMIT: COMMIT}
        self.gated: set[str] = set()
        self.writer: str | None = None  # the authorization that may write
        self.made: dict[str, str | None] = {}  # repositories that were asked for, with their visibility
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.cuts: dict[str, list[int]] = {}  # bytes of a file after which the connection breaks, once each
        self.sent: dict[str, bytes] = {}  # other bytes than those listed
        self.redirects: dict[str, str] = {}  # of a file to another place

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.asked.append(f"{handler.command} {path}")
        self.tokens.add(handler.headers.get("authorization"))
        if (found := _FILE.fullmatch(path)) and (files := self._repository(handler, found)) is not None:
            self._send_file(handler, files, found["path"])
        elif (found := _API.fullmatch(path)) and (files := self._repository(handler, found)) is not None:
            self._send_json(handler, _tree(files) if found["what"] == "tree" else _about(found["repository"], files))
        elif handler.command == "POST":
            content = handler.rfile.read(int(handler.headers["Content-Length"]))
            self._write(handler, path, [json.loads(line) for line in content.splitlines()])
        elif found is None:
            handler.send_error(404)

    def _write(self, handler: BaseHTTPRequestHandler, path: str, sent: list[Any]) -> None:
        """Makes a repository, tells how files are to be sent, or takes them in a commit."""
        if handler.headers.get("authorization") != self.writer:
            self._send(handler, 403, b"", {"X-Error-Message": "no right to write"})
        elif path == "/api/repos/create":
            name = f"{sent[0]['organization']}/{sent[0]['name']}"
            self.made[name] = sent[0].get("visibility")
            there = name in self.repositories
            self.repositories.setdefault(name, {})
            self._send_json(handler, {"url": f"{constants.ENDPOINT}/{name}"}, code=409 if there else 200)
        elif path == "/api/validate-yaml":
            self._send_json(handler, {"errors": [], "warnings": []})
        elif (found := _WRITE.fullmatch(path)) and found["what"] == "preupload":
            how = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self._send_json(handler, {"files": [{"path": file["path"], **how} for file in sent[0]["files"]]})
        elif found:
            files = {
                line["value"]["path"]: b64decode(line["value"]["content"]) for line in sent if line["key"] == "file"
            }
            self.repositories[found["repository"]].update(files)
            url = f"{constants.ENDPOINT}/{found['repository']}/commit/{COMMIT}"
            self._send_json(handler, {"success": True, "commitUrl": url, "commitOid": COMMIT})

    def _repository(self, handler: BaseHTTPRequestHandler, found: re.Match[str]) -> dict[str, bytes] | None:
        name, revision = found["repository"], found["revision"] or "main"
        code, error = 0, ""
        if name not in self.repositories:
            code, error = 401, "RepoNotFound"
        elif name in self.gated and handler.headers.get("authorization") is None:
            code, error = 401, "GatedRepo"
        elif revision not in self.revisions:
            code, error = 404, "RevisionNotFound"
        if not code:
            return self.repositories[name]
        self._send(handler, code, b"", {"X-Error-Code": error, "X-Error-Message": error})
        return None

    def _send_file(self, handler: BaseHTTPRequestHandler, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            self._send(handler, 404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = files[path]
        entry = _entry(path, content)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{entry.get("lfs", entry)["oid"]}"', "Accept-Ranges": "bytes"}
        if path in self.redirects:
            headers |= {"Location": self.redirects[path], "X-Linked-ETag": headers["ETag"]}
            self._send(handler, 302, b"", headers | {"X-Linked-Size": str(len(content))})
            return
        content = self.sent.get(path, content)
        begin = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        cuts = self.cuts.get(path) if handler.command == "GET" else None
        self._send(handler, 206 if begin else 200, content[begin:], headers, cut=cuts.pop(0) if cuts else None)

    def _send_json(self, handler: BaseHTTPRequestHandler, content: Any, *, code: int = 200) -> None:
        self._send(handler, code, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        code: int,
        content: bytes,
        headers: dict[str, str],
        *,
        cut: int | None = None,
    ) -> None:
        handler.send_response(code)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content if cut is None else content[:cut])
            handler.close_connection = cut is not None


def _entry(path: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if path.endswith(".safetensors"):
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": 130}
    return entry


def _tree(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [_entry(path, content) for path, content in files.items()]


def _about(name: str, files: dict[str, bytes]) -> dict[str, Any]:
    return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files], "private": False}


@contextlib.contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serves on a free port of loopback; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "HEAD", "POST", "PUT"):
        setattr(Handler, f"do_{method}", lambda handler: answer(handler))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def hub_for(patched: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Makes an empty hub the one that huggingface_hub asks, with this cache, and no pauses before it asks again."""
    made = Hub()
    with serving(made.answer) as address:
        patched.setattr(constants, "ENDPOINT", address)
        patched.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        patched.setattr(constants, "HF_HUB_CACHE", str(cache))
        patched.setattr(constants, "HF_HUB_OFFLINE", False)
        for module in ("file_download", "utils._http"):
            patched.setattr(f"huggingface_hub.{module}.time", SimpleNamespace(sleep=lambda _: None))
        yield made
    close_session()
