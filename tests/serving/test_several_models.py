"""Models of every kind beside each other: their answers are the library's; one is swapped while requests wait."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from serving_server import TEXTS, asked, started, write_encoder

from bertjax.inference.classifier import Classifier
from bertjax.inference.matcher import Matcher
from bertjax.serving.app import Server
from bertjax.serving.models import Origin


def answer(server: Server, path: str, status: int = 200, /, **body: Any) -> Any:
    (response,) = asked(server, (path, body))
    assert response.status_code == status, response.text
    return response.json()


def test_vectors_of_all_tokens(server: Server) -> None:
    told = answer(server, "/embed_all", inputs=TEXTS)
    for ours, theirs in zip(told, server.models.encoder("tiny").encoder.encode(TEXTS, pooling="tokens"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_similarity(server: Server) -> None:
    told = answer(server, "/similarity", inputs={"source_sentence": TEXTS[0], "sentences": TEXTS})
    units = server.models.encoder("tiny").encoder.encode(TEXTS, normalize=True)
    np.testing.assert_allclose(told, units @ units[0], atol=1e-6)
    body: dict[str, Any] = {"inputs": {"source_sentence": "a", "sentences": []}}
    assert answer(server, "/similarity", 400, **body)["error_type"] == "Empty"


def test_labels_of_texts_and_pairs(server: Server) -> None:
    classifier = server.models.head("classify").model
    assert isinstance(classifier, Classifier)
    for inputs, items in (
        ([["a crane"], ["he", "left"]], ["a crane", ("he", "left")]),
        ("a crane", ["a crane"]),
        (["he", "left"], [("he", "left")]),
    ):
        told = answer(server, "/predict", inputs=inputs, model="classify")
        told = told if isinstance(told[0], list) else [told]
        for of_text, expected in zip(told, classifier.probabilities(items), strict=True):
            assert [one["score"] for one in of_text] == sorted((one["score"] for one in of_text), reverse=True)
            by_label = {one["label"]: one["score"] for one in of_text}
            np.testing.assert_allclose([by_label[label] for label in classifier.labels], expected, atol=1e-6)
    assert answer(server, "/classify", inputs="a crane") == [answer(server, "/classify/predict", inputs="a crane")]
    raw = answer(server, "/classify/predict", inputs="a crane", raw_scores=True)
    assert abs(sum(one["score"] for one in raw) - 1) > 1e-3


def test_texts_in_the_order_in_which_they_answer(server: Server) -> None:
    matcher = server.models.head("rerank").model
    assert isinstance(matcher, Matcher)
    ranked = matcher.rank("a crane", TEXTS)
    told = answer(server, "/rerank", query="a crane", texts=TEXTS, model="rerank", return_text=True)
    assert [(one["index"], one["text"]) for one in told] == [(one.number, TEXTS[one.number]) for one in ranked]
    np.testing.assert_allclose([one["score"] for one in told], [one.score for one in ranked], atol=1e-6)


def test_tags_of_words(server: Server) -> None:
    texts = ["a crane is flying", ["he", "just", "left"]]
    told = answer(server, "/tags", inputs=texts, model="tag")
    for ours, theirs in zip(told, server.models.tagger("tag").tagger.predict(texts), strict=True):
        assert [one["word"] for one in ours["words"]] == theirs.words
        assert [one["tag"] for one in ours["words"]] == theirs.tags
        np.testing.assert_allclose([one["score"] for one in ours["words"]], theirs.probabilities, atol=1e-6)
        assert [one["word"] for one in ours["entities"]] == [one.text for one in theirs.entities]
    assert answer(server, "/tag", inputs=texts[0]) == told[0]["entities"]


def test_words_for_masks(server: Server) -> None:
    encoder = server.models.encoder("tiny").encoder
    many = "a <mask> " * 12  # more masks than a batch has
    told = answer(server, "/fill_mask", inputs=["a <mask> is flying", many], top_k=3)
    for ours, text in zip([[told[0]], told[1]], ["a <mask> is flying", many], strict=True):
        theirs = encoder.fill_mask(text, top=3)
        assert [[one["token_str"] for one in mask] for mask in ours] == [[one.word for one in mask] for mask in theirs]
        scores = [[one["score"] for one in mask] for mask in ours]
        np.testing.assert_allclose(scores, [[one.probability for one in mask] for mask in theirs], atol=1e-6)
    assert answer(server, "/fill_mask", inputs="a <mask>") == answer(server, "/tiny/fill_mask", inputs="a <mask>")


def test_tokens(server: Server) -> None:
    encoder = server.models.encoder("tiny").encoder
    (told,) = answer(server, "/tokenize", inputs="a crane")
    assert [one["text"] for one in told] == encoder.tokens_read(["a", "crane"])
    assert [one["special"] for one in told] == [True, False, False, True]
    (plain,) = answer(server, "/tokenize", inputs="a crane", add_special_tokens=False)
    assert [one["id"] for one in plain] == encoder.tokenizer.ids(["a", "crane"])


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/predict", {"inputs": "a"}, 424, "tiny is a model for feature-extraction and has no head"),
        ("/rerank", {"query": "a", "texts": ["b"], "model": "classify"}, 424, "tells labels and ranks nothing"),
        ("/rerank", {"query": "", "texts": ["b"], "model": "rerank"}, 400, "query is empty"),
        ("/rerank", {"query": "a", "texts": ["b", ""], "model": "rerank"}, 400, "texts[1] is empty"),
        ("/rerank", {"query": "a" * 999, "texts": ["b"] * 30, "model": "rerank"}, 413, "the query is too long for so"),
        ("/embed", {"inputs": "a", "model": "tag"}, 424, "tag is a model for token-classification and makes no"),
        ("/tags", {"inputs": "a"}, 424, "tiny is a model for feature-extraction and tags no words"),
        ("/tags", {"inputs": "a " * 20, "model": "tag"}, 413, "inputs has words beyond the 16 tokens"),
        ("/classify/predict", {"inputs": []}, 400, "inputs is empty"),
        ("/classify/predict", {"inputs": [["a", "b", "c"]]}, 422, "inputs[0] has 3 texts"),
        ("/classify/predict", {"inputs": ["a", "b", "c"]}, 422, "inputs[0] has 3 texts"),
        ("/classify/predict", {"inputs": [["a"], "b"]}, 422, "inputs mix texts and lists"),
        ("/classify/predict", {"inputs": "a " * 20}, 413, "20 words, but only 14 fit"),
        ("/classify/predict", {"inputs": "a" * 2000}, 413, "a text of more than 1,024 characters"),
        ("/fill_mask", {"inputs": "no mask"}, 422, "there is no <mask> in 'no mask'"),
        ("/classify/fill_mask", {"inputs": "<mask>"}, 424, "makes no vectors"),
        ("/embed", {"inputs": "a", "truncate": True, "truncation_direction": "Left"}, 422, "is cut at the right"),
    ],
)
def test_mistakes(server: Server, path: str, body: dict[str, Any], status: int, said: str) -> None:
    assert said in answer(server, path, status, **body)["error"]


def test_a_model_is_swapped_without_losing_a_request(tmp_path: Path) -> None:
    folder, new = write_encoder(tmp_path / "model", longest=16), write_encoder(tmp_path / "new", seed=1, longest=16)
    with started(Origin("model", str(folder), batch_tokens=16)) as server:

        def vectors() -> np.ndarray:
            return server.models.encoder(None).encoder.encode(TEXTS, normalize=True)

        before = vectors()

        async def play() -> tuple[list[np.ndarray], np.ndarray]:
            transport = httpx2.ASGITransport(app=server.app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

                async def ask() -> np.ndarray:
                    response = await client.post("/embed", json={"inputs": TEXTS})
                    assert response.status_code == 200
                    return np.array(response.json(), np.float32)

                (folder / "model.safetensors").write_bytes((new / "model.safetensors").read_bytes())
                reloading, seen = asyncio.ensure_future(server.reload()), []
                while not reloading.done():
                    seen.append(await ask())
                return seen, await ask()

        seen, last = asyncio.run(play())
        after = vectors()
        assert abs(after - before).max() > 1e-3
        np.testing.assert_allclose(seen[0], before, atol=1e-6)
        np.testing.assert_allclose(last, after, atol=1e-6)
        assert all(min(abs(one - before).max(), abs(one - after).max()) < 1e-6 for one in seen)
        (folder / "model.safetensors").write_bytes(b"no weights")
        asyncio.run(server.reload())  # says so, and keeps what it has
        np.testing.assert_allclose(answer(server, "/embed", inputs=TEXTS), after, atol=1e-6)
