"""Clients as people have them, against a server on loopback: they get what the library computes."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from serving_server import TEXTS, Listening, started, write_encoder, write_heads

from bertjax.inference.classifier import Classifier
from bertjax.inference.encoder import Encoder
from bertjax.inference.tagger import Tagger
from bertjax.serving.guard import Guard
from bertjax.serving.models import Origin

KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    return {"tiny": write_encoder(folder / "tiny")} | write_heads(folder)


@pytest.fixture(scope="module")
def url(folders: dict[str, Path]) -> Iterator[str]:
    origins = [Origin(name, str(path), batch_tokens=80) for name, path in folders.items()]
    with started(*origins) as served, Listening(served, Guard([KEY])) as listening:
        yield "http://127.0.0.1:{1}".format(*listening.socket.getsockname())


@pytest.fixture(scope="module")
def units(folders: dict[str, Path]) -> np.ndarray:
    return Encoder.load(folders["tiny"]).encode(TEXTS, normalize=True)


def test_openai(url: str, units: np.ndarray) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny", "classify", "rerank", "tag"]
        for how in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            answer = client.embeddings.create(model="tiny", input=TEXTS, **how)
            vectors = [one.embedding for one in answer.data]
            if how.get("encoding_format") == "base64" and isinstance(vectors[0], str):
                continue
            np.testing.assert_allclose(vectors, units, atol=1e-6)
        short = client.embeddings.create(model="tiny", input=TEXTS[0], dimensions=4).data[0].embedding
        np.testing.assert_allclose(short, units[0, :4] / np.linalg.norm(units[0, :4]), atol=1e-6)
        with pytest.raises(openai.NotFoundError, match="there is no model 'other'") as caught:
            client.embeddings.create(model="other", input="a")
        assert caught.value.code == "model_not_found" and caught.value.param == "model"
        with pytest.raises(openai.BadRequestError, match="100 words, but only 38 fit"):
            client.embeddings.create(model="tiny", input="a " * 100)
        with pytest.raises(openai.AuthenticationError, match="a key is needed"):
            client.with_options(api_key="another-key-of-a-length").embeddings.create(model="tiny", input="a")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub calls nobody else here, and with HF_HUB_OFFLINE not even this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def test_huggingface_hub(url: str, units: np.ndarray, folders: dict[str, Path], online: None) -> None:
    client = huggingface_hub.InferenceClient(token=KEY)
    for address in (url, f"{url}/tiny", f"{url}/tiny/embed"):
        np.testing.assert_allclose(client.feature_extraction(TEXTS[0], model=address), units[:1], atol=1e-6)
    near = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS, model=f"{url}/similarity")
    np.testing.assert_allclose(near, units @ units[0], atol=1e-6)
    label = client.text_classification(TEXTS[0], model=f"{url}/classify")[0]
    best = Classifier.load(folders["classify"]).predict(TEXTS[:1])[0]
    assert label.label == best.label and label.score == pytest.approx(best.probability, abs=1e-6)
    guess = client.fill_mask("a <mask> is flying", model=f"{url}/fill_mask")[0]
    assert guess.token_str == Encoder.load(folders["tiny"]).fill_mask("a <mask> is flying")[0][0].word
    found = client.token_classification(TEXTS[0], model=f"{url}/tag")
    assert [one.word for one in found] == [
        one.text for one in Tagger.load(folders["tag"]).predict(TEXTS[0])[0].entities
    ]


def test_langchain(url: str, units: np.ndarray, online: None) -> None:
    langchain = pytest.importorskip("langchain_huggingface", reason="no part of [interop]: it brings forty packages")
    client = langchain.HuggingFaceEndpointEmbeddings(model=f"{url}/tiny", huggingfacehub_api_token=KEY)
    np.testing.assert_allclose(client.embed_documents(TEXTS), units, atol=1e-6)
    np.testing.assert_allclose(client.embed_query(TEXTS[1]), units[1], atol=1e-6)
