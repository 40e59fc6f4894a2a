"""The questions of `bertjax explore`, and the server that passes them on."""

import contextlib
import gzip
import http.client
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusal

from bertjax.cli.main import main
from bertjax.inference import explore
from bertjax.inference.encoder import Encoder
from bertjax.inference.explore import Corpus, Explorer, lines_of_file, lines_of_run, on_a_map
from bertjax.inference.explore_server import make_server, respond

REFERENCE = Path(__file__).parents[1] / "reference"
LINES = ["the crane sees a river", "a driver sees the crane", "the river", "a tower", "crane", "the tower sees"] * 2
OURS = {"Host": "127.0.0.1:8420", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer(Encoder.load(REFERENCE / "run" / "at_step_3"), Corpus("some lines", LINES))


# Answers.


def test_guesses_are_the_encoders(explorer: Explorer) -> None:
    found = explorer.answer("guesses", {"text": "the <mask> sees a <mask> zeppelin"})
    with pytest.warns(UserWarning, match="zeppelin"):
        expected = explorer.encoder.fill_mask("the <mask> sees a <mask> zeppelin")
    assert found["masks"] == [[guess._asdict() for guess in guesses] for guesses in expected]
    assert len(found["notes"]) == 1 and "zeppelin" in found["notes"][0]


def test_neighbours_are_the_nearest_lines_first(explorer: Explorer) -> None:
    found = explorer.answer("neighbours", {"text": "a tower"})["lines"]
    assert found[0] == {"text": "a tower", "cosine": pytest.approx(1, abs=1e-6)} and len(found) == 10
    assert [line["cosine"] for line in found] == sorted((line["cosine"] for line in found), reverse=True)
    vectors = explorer.encoder.encode(["a tower", found[-1]["text"]], normalize=True)
    assert found[-1]["cosine"] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)


def test_senses_are_every_use_on_a_map(explorer: Explorer) -> None:
    found = explorer.answer("senses", {"word": "crane"})
    assert [use["text"] for use in found["uses"]] == [line for line in LINES if "crane" in line]
    assert max(abs(use[axis]) for use in found["uses"] for axis in "xy") == pytest.approx(1)
    alike = {(use["text"], round(use["x"], 5), round(use["y"], 5)) for use in found["uses"]}
    assert len(alike) == 3  # the same line is at the same place


def test_texts_are_compared_token_by_token(explorer: Explorer) -> None:
    found = explorer.answer("similarity", {"first": "the crane", "second": "a crane sees"})
    assert found["first"] == ["<cls>", "the", "crane", "<sep>"]
    assert found["second"] == ["<cls>", "a", "crane", "sees", "<sep>"]
    assert np.shape(found["cosines"]) == (4, 5)
    same = explorer.answer("similarity", {"first": "the crane", "second": "the crane"})
    np.testing.assert_allclose(np.diag(same["cosines"]), 1, atol=1e-4)
    assert same["whole"] == pytest.approx(1, abs=1e-6) and found["whole"] < 1


@pytest.mark.parametrize(
    "question, asked, said",
    [
        ("haruspicy", {"text": "a"}, "there is no question 'haruspicy'; ask one of guesses, neighbours, senses"),
        ("guesses", {"text": "no mask"}, "there is no <mask> in 'no mask'; put one where a word is to be guessed"),
        ("guesses", {"text": "<mask> " * 250}, "the text has 250 words, but only 30 fit"),
        ("guesses", {"text": "a" * 2001}, "text has 2,001 characters; give 2,000 at most"),
        ("guesses", {"text": " \n"}, "text is empty; write something"),
        ("guesses", {"text": ["<mask>"]}, "text: expected text, got ['<mask>']"),
        ("guesses", {"word": "<mask>"}, "the question has 'word'; give text"),
        ("similarity", {}, "the question has nothing; give first, second"),
        ("senses", ["crane"], "the question: expected "),
        ("senses", {"word": "zeppelin"}, "'zeppelin' is nowhere in some lines; give a word that is there"),
        ("neighbours", {"text": "a", "top": 3}, "the question has 'text', 'top'; give text"),
    ],
)
def test_what_cannot_be_answered(explorer: Explorer, question: str, asked: Any, said: str) -> None:
    assert refusal(explorer.answer, question, asked).startswith(said)


def test_without_a_text_there_is_nothing_to_compare_with(explorer: Explorer) -> None:
    alone = Explorer(explorer.encoder, Corpus("it has gone", []))
    said = "there is no text to compare with: it has gone; start with --text FILE"
    assert refusal(alone.answer, "neighbours", {"text": "a"}) == said
    assert refusal(alone.answer, "senses", {"word": "crane"}) == said
    assert alone.answer("guesses", {"text": "a <mask>"})["masks"]


def test_a_map_shows_the_main_axes() -> None:
    rng = np.random.default_rng(0)
    spread_n2 = rng.normal(size=(50, 2)) * [5, 1]
    axes_2d, _ = np.linalg.qr(rng.normal(size=(8, 2)))
    points_n2 = on_a_map(spread_n2 @ axes_2d.T + 7)
    assert abs(points_n2).max() == 1 and points_n2[abs(points_n2[:, 0]).argmax(), 0] == 1
    for axis, least in ((0, 0.99), (1, 0.9)):
        assert abs(np.corrcoef(points_n2[:, axis], spread_n2[:, axis])[0, 1]) > least
    assert (on_a_map(np.ones((3, 4))) == 0).all() and on_a_map(np.ones((2, 1))).shape == (2, 2)


def test_it_ends_between_answers(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "_AT_ONCE", 4)
    ending = Explorer(explorer.encoder, explorer.corpus)
    encode, encoded = Encoder.stream, []

    def stream(encoder: Encoder, windows: Any, **how: Any) -> Iterator[Any]:
        for of_window in encode(encoder, windows, **how):
            encoded.append(len(of_window))
            threading.Thread(target=ending.end).start()  # which waits for this answer
            ending._ended.wait()
            yield of_window

    monkeypatch.setattr(Encoder, "stream", stream)
    assert refusal(ending.answer, "neighbours", {"text": "a"}) == "bertjax explore has been ended"
    assert encoded == [4]
    ending.end()
    assert refusal(ending.answer, "guesses", {"text": "a <mask>"}) == "bertjax explore has been ended"


# Texts.


def test_lines_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "MOST_LINES", 3)
    packed = tmp_path / "lines.txt.gz"
    packed.write_bytes(gzip.compress("\ufefffirst\n\n second \r\nthird\nfourth\nfifth".encode()))
    assert lines_of_file(str(packed)) == Corpus(str(packed), ["first", "third", "fifth"])
    for content, said in ((b"\n \n", "has no lines; give a file"), (b"a\n\xff", "is not UTF-8 text (byte 1); convert")):
        (tmp_path / "bad.txt").write_bytes(content)
        assert said in refusal(lines_of_file, str(tmp_path / "bad.txt"))
    assert refusal(lines_of_file, "none.txt").startswith("--text none.txt cannot be read: No such file")


def test_lines_of_a_run_are_what_it_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shutil.copytree(REFERENCE / "run", tmp_path / "old"))
    corpus = lines_of_run(Path("at_step_3"))
    text = Path("held_out.txt").read_text().lower()
    assert len(corpus.lines) > 5
    known = [line for line in corpus.lines if "<unk>" not in line]
    assert known and all(line.replace(" .", ".") in text.replace(" .", ".") for line in known)
    Path("held_out.txt").unlink()
    assert "held_out.txt" in refusal(lines_of_run, Path("at_step_3"))


# The server, without sockets.


def answered(explorer: Explorer, method: str, path: str, body: object = None, **headers: str | None) -> tuple[int, Any]:
    sent = OURS | {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = respond(explorer, 8420, method, path, sent, content, name="runs/<b>")  # type: ignore[arg-type]
    assert "default-src 'none'" in response.policy
    return int(response.status), json.loads(response.body) if response.kind == "application/json" else response


def test_the_page_may_run_its_own_script_alone(explorer: Explorer) -> None:
    status, response = answered(explorer, "GET", "/")
    nonce = response.policy.split("'nonce-")[1].split("'")[0]
    assert status == 200 and f'<script nonce="{nonce}">' in response.body and response.body.count("<script") == 1
    assert "connect-src 'self'" in response.policy and "script-src 'unsafe" not in response.policy
    assert '<h1 dir="auto">runs/&lt;b&gt;</h1>' in response.body and "12 lines of <bdi>some lines" in response.body
    assert nonce not in answered(explorer, "GET", "/")[1].policy


def test_questions_are_json_of_this_page(explorer: Explorer) -> None:
    asked = {"text": "a <mask>"}
    assert answered(explorer, "POST", "/api/guesses", asked)[0] == 200
    assert (
        answered(explorer, "POST", "/api/guesses", asked, Host="localhost:8420", Origin="http://localhost:8420")[0]
        == 200
    )
    alone = {"error": "this page is served to http://127.0.0.1:8420 alone"}
    for headers in (
        {"Host": "evil.example:8420"},
        {"Host": "127.0.0.1"},
        {"Host": None},
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1:8420"},
        {"Origin": "null"},
    ):
        assert answered(explorer, "POST", "/api/guesses", asked, **headers) == (403, alone)
        assert answered(explorer, "GET", "/", **headers) == (403, alone)
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        assert answered(explorer, "POST", "/api/guesses", asked, Content_Type=kind)[0] == 415
    assert answered(explorer, "POST", "/api/guesses", asked, Content_Type="Application/JSON; charset=utf-8")[0] == 200


@pytest.mark.parametrize(
    "method, path, body, status, said",
    [
        ("GET", "/etc/passwd", None, 404, "there is nothing at '/etc/passwd'; the page is at /"),
        ("POST", "/", None, 405, "the page is read by GET"),
        ("GET", "/api/guesses", None, 405, "questions are asked by POST"),
        ("POST", "/api/guesses", b"{", 400, "the question is not JSON"),
        ("POST", "/api/guesses", b"\xff", 400, "the question is not JSON"),
        ("POST", "/api/guesses", b"[" * 60_000, 400, "the question is not JSON"),
        ("POST", "/api/../x", {"text": "a"}, 400, "there is no question '../x'; ask one of guesses"),
        ("POST", "/api/guesses", None, 400, "the question: expected"),
    ],
)
def test_what_is_refused(explorer: Explorer, method: str, path: str, body: Any, status: int, said: str) -> None:
    code, answer = answered(explorer, method, path, body)
    assert code == status and answer["error"].startswith(said)


def test_a_question_that_fails_is_told_of(explorer: Explorer, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(explorer, "answer", fail)
    assert answered(explorer, "POST", "/api/guesses", {}) == (500, {"error": "the question failed (RuntimeError)"})
    assert capsys.readouterr().err == "warning: a question failed: RuntimeError: out of memory\n"


# The server, on loopback.


@pytest.fixture
def served(explorer: Explorer) -> Iterator[Callable[..., tuple[int, dict[str, str], str]]]:
    """Sends a request to a server, and returns status, headers and body."""
    server = make_server(explorer, 0, name="run")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def send(method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read().decode()

    yield send
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_is_served_to_this_machine(served: Callable, explorer: Explorer) -> None:
    status, headers, body = served("GET", "/")
    assert status == 200 and body.startswith("<!doctype html>")
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"].endswith("; frame-ancestors 'none'")
    question = json.dumps({"text": "a <mask>"})
    status, _, body = served("POST", "/api/guesses", question, Content_Type="application/json")
    assert (status, json.loads(body)) == (200, explorer.answer("guesses", {"text": "a <mask>"}))
    assert served("GET", "/", Host="evil.example")[0] == 403
    assert served("POST", "/api/guesses", Content_Length="x")[0] == 411
    assert served("POST", "/api/guesses", Content_Length="99999999")[0] == 413
    assert served("PUT", "/")[0] == 501


@pytest.mark.parametrize(
    "argv, said",
    [
        (["run", "--port", "65536"], "--port 65536 is no port; give 0 to 65535"),
        (["run", "--port", "many"], "invalid int value: 'many'"),
        (["run"], "run is not a run's folder nor a Hugging Face one"),
        (["run", "--text", "none.txt"], "--text none.txt cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_explored(argv: list[str], said: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explore", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupted)
    bert = REFERENCE / "bert"
    assert main(["explore", str(bert), "--port", "0"]) == 0
    without, address, empty, end = capsys.readouterr().out.splitlines()
    assert without.startswith(f"neighbours and senses need a text, by --text FILE: {bert} is not a run's folder")
    assert address.startswith("http://127.0.0.1:") and address.endswith(
        f" shows what {bert} makes of your texts; Ctrl-C ends it"
    )
    assert (empty, end) == ("", "ended")


def test_a_port_that_is_taken(explorer: Explorer) -> None:
    with make_server(explorer, 0, name="run") as server:
        said = refusal(make_server, explorer, server.server_port, name="run")
    assert said.endswith("Address already in use; give another by --port, or 0 for a free one")
