"""WikiText-2 from files and from hostile servers, all on this machine's loopback."""

import contextlib
import errno
import functools
import hashlib
import http.server
import io
import os
import socket
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from bertjax.data.sources import wikitext, wikitext_download
from bertjax.data.sources.source import Unavailable
from bertjax.data.sources.wikitext import WikiText2
from bertjax.data.sources.wikitext_download import blob_id, download
from bertjax.errors import BertjaxError

TEXT = {
    "train": b" \n = Crane = \n \n a crane flies . it lands . \n \n",
    "valid": b" \n = Heron = \n \n a heron stands . it waits . \n \n",
    "test": b" \n = Stork = \n \n a stork sleeps . it dreams . \n \n",
}
PINS = {split: blob_id(text) for split, text in TEXT.items()}
ZIP, PLAIN, PARQUET = wikitext_download.MIRRORS
REAL = os.environ.get("BERTJAX_DATA")  # before a fixture hides it


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever a test forgets, no real mirror is asked, and no proxy stands before the loopback server."""
    monkeypatch.setattr(wikitext, "download", functools.partial(download, mirrors=(), pins=PINS))
    monkeypatch.setattr(wikitext_download, "PAUSE", 0.01)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("BERTJAX_DATA", raising=False)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers["User-Agent"]))
        answer = self.server.routes.get(self.path, 404)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, int):
            self.send_error(answer)
        elif callable(answer):
            answer(self)
        else:
            self.send(len(answer), answer)

    def send(self, length, body):
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes, self.asked = {}, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def make_zip(members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def make_parquet(text):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, which reads the third mirror, is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow came without parquet")
    rows = [line if line.strip() else "" for line in text.decode().splitlines(keepends=True)]
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": rows}), file)
    return file.getvalue()


GOOD_ZIP = make_zip({f"wikitext-2/wiki.{split}.tokens": text for split, text in TEXT.items()})
STORED_ZIP = make_zip({"wikitext-2/wiki.valid.tokens": TEXT["valid"]}, zipfile.ZIP_STORED)
BAD_CRC = STORED_ZIP.replace(b"heron", b"egret")


def zip_mirror(server, sha1=None):
    return ZIP._replace(url=f"{server.url}/z.zip", sha1=sha1)


def plain_mirror(server):
    return PLAIN._replace(url=f"{server.url}/{{split}}.txt")


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fails(tmp_path, *mirrors, splits=("valid",), **settings):
    """The error's message; nothing may lie in the folder or beside it."""
    with pytest.raises(BertjaxError) as caught:
        wikitext.download(splits, tmp_path / "cache", mirrors=mirrors, **settings)
    assert listing(tmp_path) == ["cache"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Downloads that serve.


def test_zip_is_fetched_once_for_all_splits(server, tmp_path):
    server.routes["/z.zip"] = GOOD_ZIP
    mirror = zip_mirror(server, sha1=hashlib.sha1(GOOD_ZIP).hexdigest())
    wikitext.download(list(TEXT), tmp_path, mirrors=[mirror])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"wiki.{split}.tokens": text for split, text in TEXT.items()
    }
    assert server.asked == [("/z.zip", "bertjax/0.1")]


def test_plain_files_and_only_the_missing(server, tmp_path):
    server.routes |= {f"/{split}.txt": text for split, text in TEXT.items()}
    (tmp_path / "wiki.train.tokens").write_bytes(b"here already")
    wikitext.download(list(TEXT), tmp_path, mirrors=[plain_mirror(server)])
    assert [path for path, _ in server.asked] == ["/valid.txt", "/test.txt"]
    assert (tmp_path / "wiki.train.tokens").read_bytes() == b"here already"
    assert (tmp_path / "wiki.test.tokens").read_bytes() == TEXT["test"]


def test_parquet_gives_the_file_back(server, tmp_path):
    server.routes["/validation.parquet"] = make_parquet(TEXT["valid"])
    mirror = PARQUET._replace(url=f"{server.url}/{{long_split}}.parquet")
    wikitext.download(["valid"], tmp_path, mirrors=[mirror])
    assert (tmp_path / "wiki.valid.tokens").read_bytes() == TEXT["valid"]


def test_second_mirror_takes_over(server, tmp_path):
    server.routes["/valid.txt"] = TEXT["valid"]
    wikitext.download(["valid"], tmp_path, mirrors=[zip_mirror(server), plain_mirror(server)])
    assert listing(tmp_path) == ["wiki.valid.tokens"]


def test_second_mirror_brings_only_what_the_first_lacks(server, tmp_path):
    server.routes |= {"/train.txt": TEXT["train"], "/z.zip": GOOD_ZIP}
    wikitext.download(["train", "valid"], tmp_path, mirrors=[plain_mirror(server), zip_mirror(server)])
    assert listing(tmp_path) == ["wiki.train.tokens", "wiki.valid.tokens"]


def test_retry_after_a_first_500_and_a_cut_body(server, tmp_path):
    server.routes["/valid.txt"] = [500, lambda handler: handler.send(99, b"cut"), TEXT["valid"]]
    wikitext.download(["valid"], tmp_path, mirrors=[plain_mirror(server)], attempts=3)
    assert len(server.asked) == 3
    assert (tmp_path / "wiki.valid.tokens").read_bytes() == TEXT["valid"]


# Downloads that do not.


@pytest.mark.parametrize(
    "answer, reason, tries",
    [
        (404, "HTTP 404 Not Found", 1),
        (403, "HTTP 403 Forbidden", 1),
        (500, "HTTP 500 Internal Server Error", 2),
        (lambda handler: handler.send(99, b"cut"), "cut short at 3 of 99 bytes", 2),
        (TEXT["train"], f"wrong hash of valid: {PINS['train']}, not {PINS['valid']}", 1),
        (b"", "wrong hash", 1),
        (lambda handler: handler.wfile.write(b"nonsense\r\n"), "nonsense", 2),
        (lambda handler: None, "closed connection", 2),
    ],
)
def test_bad_answers(server, tmp_path, answer, reason, tries):
    server.routes["/valid.txt"] = answer
    message = fails(tmp_path, plain_mirror(server), attempts=2)
    assert f"{server.url}/valid.txt: " in message and reason in message
    assert len(server.asked) == tries


def test_every_mirror_is_listed(server, tmp_path):
    with socket.socket() as unheard:  # bound, not listening: connections are refused
        unheard.bind(("127.0.0.1", 0))
        refusing = PLAIN._replace(url=f"http://127.0.0.1:{unheard.getsockname()[1]}/{{split}}")
        message = fails(tmp_path, zip_mirror(server), refusing, splits=("valid", "test"))
    assert "(valid, test)" in message
    assert "/z.zip: HTTP 404 Not Found; " in message
    assert "Connection refused" in message


def test_a_proxy_is_named_and_its_password_is_not(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:9")  # the server's own address is http
    message = fails(tmp_path, zip_mirror(server))
    assert "cannot be downloaded by way of the proxy 127.0.0.1:9: http://" in message and "secret" not in message
    assert capsys.readouterr().out == f"fetching WikiText-2 (valid) into {tmp_path / 'cache'}, once\n"


@pytest.mark.parametrize(
    "body, reason",
    [
        (make_zip({"../../evil/wiki.valid.tokens": TEXT["valid"]}), "cannot be unpacked"),
        (
            make_zip({"../wiki.valid.tokens": TEXT["valid"], "/wiki.valid.tokens": b"evil"}),
            "cannot be unpacked",
        ),
        (make_zip({"wikitext-2/wiki.valid.tokens": b"evil"}), "wrong hash"),
        (make_zip({"wikitext-2/wiki.valid.tokens": bytes(10**6)}), "more than 10000 bytes"),
        (make_zip({"wikitext-2/wiki.valid.tokens": bytes(10**6)}, zipfile.ZIP_LZMA), "more than 10000 bytes"),
        (b"no zip", "not a zip"),
        (GOOD_ZIP[:-30], "not a zip"),
        (BAD_CRC, "Bad CRC-32"),
    ],
)
def test_hostile_zips(server, tmp_path, monkeypatch, body, reason):
    monkeypatch.setattr(wikitext_download, "MAX_BYTES", 10_000)
    server.routes["/z.zip"] = body
    assert reason in fails(tmp_path, zip_mirror(server))


def test_an_unknown_archive_is_not_opened(server, tmp_path):
    server.routes["/z.zip"] = GOOD_ZIP
    assert "wrong hash of the archive" in fails(tmp_path, zip_mirror(server, sha1="0" * 40))


def test_oversize_body(server, tmp_path, monkeypatch):
    monkeypatch.setattr(wikitext_download, "MAX_BYTES", 10_000)

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(bytes(1000))

    server.routes |= {"/valid.txt": bytes(10_001), "/z.zip": endless}
    message = fails(tmp_path, plain_mirror(server), zip_mirror(server), total_seconds=5)
    assert message.count("more than 10000 bytes") == 2


def test_parquet_bomb_and_missing_pyarrow(server, tmp_path, monkeypatch):
    monkeypatch.setattr(wikitext_download, "MAX_BYTES", 10_000)
    server.routes["/p"] = make_parquet(b"the same line\n" * 10_000)
    assert len(server.routes["/p"]) < 10_000
    mirror = PARQUET._replace(url=f"{server.url}/p")
    assert "more than 10000 bytes" in fails(tmp_path, mirror)
    server.asked.clear()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pip install 'bertjax[parquet]'" in fails(tmp_path, mirror)
    assert server.asked == []


def test_no_redirection_leads_to_a_file_of_ours(server, tmp_path):
    def redirect(handler):
        handler.wfile.write(b"HTTP/1.0 302 Found\r\nLocation: file:///etc/hostname\r\n\r\n")

    server.routes["/z.zip"] = redirect
    assert "Redirection to url 'file:///etc/hostname' is not allowed" in fails(tmp_path, zip_mirror(server))


@pytest.mark.parametrize("head", [b"", b"HTTP/1.0 200 OK\r\n\r\n"], ids=["in the header", "in the body"])
def test_total_time_holds_against_a_drip(server, tmp_path, head):
    def drip(handler):
        handler.wfile.write(head)
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"x")
                time.sleep(0.05)

    server.routes |= {"/valid.txt": drip, "/z.zip": GOOD_ZIP}
    start = time.monotonic()
    assert "timed out" in fails(tmp_path, plain_mirror(server), total_seconds=0.5)
    assert time.monotonic() - start < 1
    wikitext.download(
        ["valid"], tmp_path, mirrors=[plain_mirror(server), zip_mirror(server)], total_seconds=1
    )  # the drip does not eat the second mirror's share
    assert (tmp_path / "wiki.valid.tokens").is_file()


def test_silent_server_times_out(server, tmp_path):
    server.routes["/valid.txt"] = lambda handler: time.sleep(0.5)
    assert "timed out" in fails(tmp_path, plain_mirror(server), timeout=0.1)
    assert len(server.asked) == 1


def test_full_disk_leaves_nothing(server, tmp_path, monkeypatch):
    def full(path, data):
        with open(path, "wb") as file:
            file.write(data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.routes["/valid.txt"] = TEXT["valid"]
    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(wikitext, "download", functools.partial(wikitext.download, mirrors=[plain_mirror(server)]))
    with pytest.raises(BertjaxError, match=r"cannot write to .*/wikitext-2 \(No space left.*data\.cache"):
        WikiText2(["valid"], None, tmp_path)
    assert listing(tmp_path) == ["wikitext-2"]


# WikiText's files.


def read(tmp_path, data):
    file = tmp_path / "wiki.valid.tokens"
    file.write_bytes(data)
    return list(wikitext.documents(file))


def test_paragraph_rule(tmp_path):
    text = (
        " \n = One = \n \n A first . A second , longer . \n no full stop here \n = = Part = = \n \n"
        " only one . \n \n = Empty = \n \n = Two = \n \n x . y ; z . w \n = 1 <unk> / s = \n a . b"
    )
    assert read(tmp_path, text.encode()) == [
        [["A first", "A second , longer ."], ["only one ."]],
        [["x", "y ; z", "w"], ["a", "b"]],
    ]
    assert read(tmp_path, b"") == []


def test_line_ends_are_translated_as_open_does(tmp_path):
    data = b"a . b\r\nc . d\re . f \x0b g\n h . \xc2\x85 i"
    [document] = read(tmp_path, data)
    with open(tmp_path / "wiki.valid.tokens", encoding="utf-8") as file:
        lines = file.readlines()
    assert document == [line.strip().split(" . ") for line in lines]
    assert len(document) == 4


@pytest.mark.parametrize(
    "data, complaint",
    [
        (b"a . b\n caf\xe9 . c\n", "is not UTF-8 at byte 10 (line 2)"),
        (b"a . b\n\xc3\xa9\n \xc3", "is not UTF-8 at byte 10 (line 3)"),
        (b"a . b\n c \0 . d\n", "has a NUL at byte 9 (line 2)"),
        ("a . b\n".encode("utf-16"), "has a NUL at byte 3 (line 1): give a UTF-8 text file"),
    ],
)
def test_bytes_that_are_no_text(tmp_path, data, complaint):
    with pytest.raises(BertjaxError) as caught:
        read(tmp_path, data)
    assert complaint in str(caught.value) and "wiki.valid.tokens" in str(caught.value)


@pytest.mark.skipif(REAL is None, reason="BERTJAX_DATA, the folder of the real text, is not set")
def test_real_counts(monkeypatch, tmp_path):
    monkeypatch.setenv("BERTJAX_DATA", REAL)
    source = WikiText2(["valid"], None, tmp_path)
    assert source.fingerprint("valid") == wikitext_download.BLOB_IDS["valid"]
    articles = list(source.documents("valid"))
    assert len(articles) == 60
    assert sum(len(article) for article in articles) == 1673
    assert sum(len(paragraph) for article in articles for paragraph in article) == 7889


# Where its files are.


@pytest.fixture
def places(tmp_path, monkeypatch):
    """path, $BERTJAX_DATA and cache, each with a file of its own for the valid split."""
    folders = [tmp_path / "path", tmp_path / "env" / "wikitext-2", tmp_path / "cache" / "wikitext-2"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "wiki.valid.tokens").write_text(f"from {folder} . \n")
    monkeypatch.setenv("BERTJAX_DATA", str(tmp_path / "env"))
    return folders


def test_lookup_order(places, tmp_path):
    for folder in places:
        source = WikiText2(["valid"], tmp_path / "path", tmp_path / "cache")
        assert list(source.documents("valid")) == list(source.documents("valid")) == [[[f"from {folder} ."]]]
        file = folder / "wiki.valid.tokens"
        assert source.fingerprint("valid") == blob_id(file.read_bytes())
        file.unlink()


def test_missing_split_is_downloaded_into_the_cache(server, places, tmp_path, monkeypatch):
    server.routes["/z.zip"] = GOOD_ZIP
    monkeypatch.setattr(wikitext, "download", functools.partial(wikitext.download, mirrors=[zip_mirror(server)]))
    source = WikiText2(["train", "valid"], tmp_path / "path", tmp_path / "cache")
    assert list(source.documents("train")) == [[["a crane flies", "it lands ."]]]
    assert source.fingerprint("train") == PINS["train"]
    assert list(source.documents("valid")) == [[[f"from {places[0]} ."]]]
    assert (tmp_path / "cache" / "wikitext-2" / "wiki.train.tokens").is_file()


def test_every_place_that_was_tried_is_told(server, places, tmp_path, monkeypatch):
    mirrors = [zip_mirror(server), plain_mirror(server)]
    monkeypatch.setattr(wikitext, "download", functools.partial(wikitext.download, mirrors=mirrors))
    with pytest.raises(Unavailable) as caught:
        WikiText2(["train"], tmp_path / "path", tmp_path / "cache")
    message = str(caught.value)
    for part in [*map(str, places), "/z.zip: HTTP 404", "/train.txt: HTTP 404"]:
        assert part in message
    assert "\n" not in message
