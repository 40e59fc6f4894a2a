"""Answers over HTTP, in this process: they are the library's, whatever is asked beside them, and mistakes are told."""

import base64
import gzip
import json
from typing import Any

import jax
import numpy as np
import pytest
from serving_server import TEXTS, Ask, asked

from bertjax.inference.encoder import Encoder
from bertjax.serving.app import Server
from bertjax.serving.guard import Guard
from bertjax.serving.models import ServedEncoder
from bertjax.serving.programs import Piece
from bertjax.serving.rows import Rows


@pytest.fixture
def encoder(server: Server) -> Encoder:
    served = server.models.get("tiny")
    assert isinstance(served, ServedEncoder)
    return served.encoder


def embedded(response: Any) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array([one["embedding"] for one in response.json()["data"]], np.float32)


def test_openais_vectors_are_those_of_encode(ask: Ask, encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS, normalize=True)
    response = ask("/v1/embeddings", {"input": TEXTS, "model": "tiny"})
    np.testing.assert_allclose(embedded(response), expected, atol=1e-6)
    sizes = [len(encoder.tokens_read(text.split())) for text in TEXTS]
    assert response.json()["usage"] == {"prompt_tokens": sum(sizes), "total_tokens": sum(sizes)}
    assert [one["index"] for one in response.json()["data"]] == [0, 1, 2]
    (in_base64,) = ask("/v1/embeddings", {"input": TEXTS[0], "encoding_format": "base64"}).json()["data"]
    decoded = np.frombuffer(base64.b64decode(in_base64["embedding"]), "<f4")
    np.testing.assert_allclose(decoded, expected[0], atol=1e-6)
    cut = embedded(ask("/v1/embeddings", {"input": TEXTS[:1], "dimensions": 4}))
    np.testing.assert_allclose(cut[0], expected[0, :4] / np.linalg.norm(expected[0, :4]), atol=1e-6)
    ids = [encoder.tokenizer.ids(text.split()) for text in TEXTS]
    for given in (ids, [[2, *of_text, 3] for of_text in ids]):  # with special tokens, or without
        np.testing.assert_allclose(embedded(ask("/v1/embeddings", {"input": given})), expected, atol=1e-6)
    np.testing.assert_allclose(embedded(ask("/v1/embeddings", {"input": ids[0]})), expected[:1], atol=1e-6)


def test_teis_vectors_are_those_of_encode(ask: Ask, encoder: Encoder) -> None:
    for body, normalize in (({}, True), ({"normalize": False, "truncate": None}, False)):
        vectors = np.array(ask("/embed", {"inputs": TEXTS, **body}).json(), np.float32)
        np.testing.assert_allclose(vectors, encoder.encode(TEXTS, normalize=normalize), atol=1e-6)
    assert np.shape(ask("/embed", {"inputs": TEXTS[0]}).json()) == (1, 16)
    long = "crane " * 100
    vectors = ask("/embed", {"inputs": long, "truncate": True, "normalize": False}).json()
    np.testing.assert_allclose(vectors, encoder.encode([long], truncate=True), atol=1e-6)


def test_nothing_is_compiled_after_the_start(server: Server, encoder: Encoder) -> None:
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    rng = np.random.default_rng(0)
    texts = [" ".join(["crane"] * rng.integers(1, 38)) for _ in range(40)]
    bodies = [texts[first : first + 1 + first % 5] for first in range(0, 40, 2)]
    answers = asked(server, *(("/embed", {"inputs": body, "normalize": False}) for body in bodies))
    assert compiled == []
    expected = dict(zip(texts, encoder.encode(texts), strict=True))
    for body, answer in zip(bodies, answers, strict=True):
        np.testing.assert_allclose(answer.json(), [expected[text] for text in body], atol=1e-6)
    jax.jit(lambda x: x * 3 + len(compiled))(np.ones(7))
    assert compiled  # so that a compilation would have been seen


def test_neighbours_change_nothing_at_one_place_and_little_elsewhere(server: Server, encoder: Encoder) -> None:
    served = server.models.get("tiny")
    assert isinstance(served, ServedEncoder)
    program, plan = served.vectors(False, None)
    pieces = [Piece(text) for text in plan.read([(text, None) for text in [*TEXTS, "a", "is left"]], str)]

    def computed(some: list[Piece]) -> np.ndarray:
        rows = Rows(1, 40, max_texts=20)
        assert all(rows.add(piece.size) for piece in some)
        return np.stack(program.start(some, rows)())

    together = computed(pieces)
    for other in (pieces[3], pieces[4]):  # as long a row, with others beside the first
        np.testing.assert_array_equal(computed([pieces[0], *[other] * 5])[0], computed([*pieces[:1], *pieces[1:]])[0])
    alone = np.concatenate([computed([piece]) for piece in pieces])
    np.testing.assert_allclose(together, alone, atol=1e-6)


LONG = "crane " * 100
MISTAKES: list[tuple[Any, int, str]] = [
    ({"inputs": ""}, 400, "inputs is empty"),
    ({"inputs": []}, 400, "inputs is empty"),
    ({"inputs": ["a", ""]}, 400, "inputs[1] is empty"),
    ({"inputs": [[]]}, 400, "inputs[0] is empty"),
    ({}, 422, "missing required field `inputs`"),
    ([], 422, "Expected `object`, got `array`"),
    ({"inputs": 3}, 422, "Expected `str | array`, got `int`"),
    ({"inputs": None}, 422, "got `null`"),
    ({"inputs": ["a", 3]}, 422, "inputs has texts and numbers"),
    ({"inputs": [3, "a"]}, 422, "inputs has numbers and others"),
    ({"inputs": [[3], "a"]}, 422, "inputs has texts and numbers"),
    ({"inputs": [[True]]}, 422, "got `bool`"),
    ({"inputs": [3, 999]}, 422, "inputs[0] has the token 999; tiny has 0 to"),
    ({"inputs": [-1]}, 422, "inputs[0] has the token -1"),
    ({"inputs": [10**30]}, 422, "inputs[0] has the token 1000000"),
    ({"inputs": LONG}, 413, "inputs has 100 words, but only 38 fit"),
    ({"inputs": ["a", LONG]}, 413, "inputs[1] has 100 words"),
    ({"inputs": [7] * 100}, 413, "inputs[0] has 100 tokens, but only 38 fit"),
    ({"inputs": ["a"] * 65}, 413, "inputs has 65 texts; give 64 at most"),
    ({"inputs": "a" * 30_000}, 413, "the body has more than 20,000 bytes"),
    ({"inputs": "a", "model": "other"}, 404, "there is no model 'other'; give one of tiny"),
    ({"inputs": "a", "dimensions": 17}, 422, "dimensions=17 is impossible for vectors of 16"),
    ({"inputs": "a", "dimensions": 0}, 422, "dimensions=0 is impossible"),
    ({"inputs": "a", "prompt_name": "other"}, 422, "prompt_name='other' is no prompt of tiny; it has"),
    ({"inputs": "a", "truncate": "yes"}, 422, "truncate: Expected `bool | null`, got `str`"),
    (b"", 400, "the body is not JSON"),
    (b'{"inputs": "a"', 400, "the body is not JSON"),
    (b'{"inputs": "\xff"}', 400, "the body is not JSON"),
    (rb'{"inputs": "\ud800 a"}', 400, "the body is not JSON"),
    (b'{"inputs": "a\0b"}', 400, "the body is not JSON"),
    (b'{"inputs": ' + b"[" * 19_000, 422, "inputs"),
    (b'{"other": ' + b"[" * 19_000, 400, "nested too deep"),
]


@pytest.mark.parametrize(("body", "status", "said"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_told_in_the_words_of_each_client(ask: Ask, body: Any, status: int, said: str) -> None:
    response = ask("/embed", body)
    assert response.status_code == status and said in response.json()["error"], response.text
    assert response.json()["error_type"] == ("Empty" if said.endswith("is empty") else "Validation")
    if isinstance(body, dict) and "inputs" in body and "prompt_name" not in body:
        theirs = {("input" if key == "inputs" else key): value for key, value in body.items()}
        response = ask("/v1/embeddings", theirs)
        error = response.json()["error"]
        assert response.status_code == (404 if status == 404 else 400) and error["type"] == "invalid_request_error"
        assert said.replace("inputs", "input") in error["message"] and error["code"]


def test_bodies_are_plain_json(server: Server, ask: Ask) -> None:
    bomb = gzip.compress(json.dumps({"inputs": "a" * 10**6}).encode())
    response = ask("/embed", bomb, **{"Content-Encoding": "gzip"})
    assert response.status_code == 415 and "compressed" in response.json()["error"]
    assert response.headers["connection"] == "close"
    response = ask("/embed", b"inputs=a", **{"Content-Type": "text/plain"})
    assert response.status_code == 415 and "Content-Type: application/json" in response.json()["error"]
    assert server._bodies._held == 0  # of this and all other tests


def test_a_word_of_nul_is_read_as_the_library_reads_it(ask: Ask, encoder: Encoder) -> None:
    vectors = ask("/embed", {"inputs": "a\0 crane", "normalize": False}).json()
    with pytest.warns(UserWarning, match="the vocabulary lacks them"):
        np.testing.assert_allclose(vectors, encoder.encode(["a\0 crane"]), atol=1e-6)


def test_what_is_told_of_models_and_of_the_server(ask: Ask) -> None:
    assert ask("/health").json() == {"status": "ready"}
    info = ask("/info").json()
    assert info["model_id"] == "tiny" and info["max_input_length"] == 40 and info["model_type"]["embedding"]
    model, *others = ask("/v1/models").json()["data"]
    assert [other["id"] for other in others] == ["classify", "rerank", "tag"]
    assert model == ask("/v1/models/tiny").json() and model["id"] == "tiny"
    assert ask("/v1/models/other").json()["error"]["code"] == "model_not_found"
    assert "there is nothing at '/other'" in ask("/other").json()["error"]
    assert ask("/embed").status_code == 405
    ask("/embed", {"inputs": TEXTS[0]})
    figures = ask("/metrics").text
    assert 'bertjax_requests_total{route="/embed",status="200"}' in figures and "bertjax_waiting_tokens 0.0" in figures
    assert "other" not in figures  # clients make up no figures


def test_keys_and_origins(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(path: str = "/info", **headers: str) -> int:
        return asked(server, (path, None), **headers)[0].status_code

    for origin, expected in (("http://127.0.0.1:8080", 200), ("http://localhost", 200), ("http://evil.com", 403)):
        assert status(Origin=origin) == expected
    monkeypatch.setattr(server, "_guard", Guard(["a-key-of-some-length", "another-key-as-long"], ["https://good.org"]))
    assert status() == 401 and status("/health") == 200
    for key in ("a-key-of-some-length", "another-key-as-long"):
        assert status(Authorization=f"Bearer {key}", Origin="https://good.org") == 200
        assert status(Authorization=f"Bearer {key[:-1]}") == status(Authorization=key) == 401
    assert asked(server, ("/v1/models", None))[0].json()["error"]["code"] == "invalid_api_key"


def test_the_interface_is_described_and_tried_on_a_page(ask: Ask) -> None:
    told = ask("/openapi.json").json()
    assert told["openapi"] == "3.1.0" and {"/embed", "/rerank", "/v1/embeddings", "/health"} <= told["paths"].keys()
    for path, methods in told["paths"].items():
        if "post" not in methods:
            continue
        schema = methods["post"]["requestBody"]["content"]["application/json"]["schema"]
        fields = told["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        assert fields["required"][0] in ("inputs", "input", "query"), path
    response = ask("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy.partition("style-src")[0]
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert response.text.count("<script") == response.text.count(f'nonce="{nonce}"') == 1
    assert "http" not in response.text and ask("/").headers["content-security-policy"] != policy
    for path, body in json.loads(response.text.partition("const examples = ")[2].partition(";\n")[0]).items():
        assert ask(path, body).status_code == 200, path
