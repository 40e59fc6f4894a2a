"""Folders that the real sentence-transformers saves: the same vectors, whatever modules they have.

`make test-interop` installs it. All weights are freshly made and random.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertjax.errors import BertjaxError
from bertjax.hub.folder import read_folder, write_folder
from bertjax.hub.sentence_transformers import read_settings
from bertjax.inference.encoder import Encoder
from bertjax.models.sentence import ACTIVATIONS, POOLINGS

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
torch = pytest.importorskip("torch", reason="torch is not installed; make test-interop installs it")
transformers = pytest.importorskip("transformers", reason="it is not installed; make test-interop installs it")
st = pytest.importorskip("sentence_transformers", reason="it is not installed; make test-interop installs it")
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

SIZE = 24
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *(f"##{letter}" for letter in "abcdefghij"), ":"]
TEXTS = ["a bad cage", "", "a b c d e f g h i j a b c d e f g h", "bee"]
PAIRS = [("a bad cage", "bee"), ("a b c d e f g h i j", "j i h g f e d c b a j i h")]


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT alone."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=len(WORDS), hidden_size=SIZE, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=40).save_pretrained(folder)
    return folder


def modules() -> Any:
    return st.sentence_transformer.modules


def saved(transformer: Path, folder: Path, *after: Any, pooling: Any = "mean", **settings: Any) -> Any:
    """Saves what comes after pooling with the model, and returns what sentence-transformers reads of it again."""
    torch.manual_seed(1)
    parts = [modules().Transformer(str(transformer)), modules().Pooling(SIZE, pooling)]
    made = st.SentenceTransformer(modules=[*parts, *after], device="cpu", **settings)
    for module in after:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    made.save(str(folder))
    return st.SentenceTransformer(str(folder), device="cpu")


def assert_same(folder: Path, theirs: Any, **asked: Any) -> None:
    encoder = Encoder.load(folder)
    for texts in (TEXTS, PAIRS):
        np.testing.assert_allclose(
            encoder.encode(texts, truncate=True, **asked), theirs.encode(texts, **asked), atol=1e-5
        )


@pytest.mark.parametrize("pooling", [*POOLINGS, ("lasttoken", "cls"), POOLINGS], ids=str)
def test_pooling(transformer: Path, tmp_path: Path, pooling: Any) -> None:
    assert_same(tmp_path, saved(transformer, tmp_path, pooling=pooling))


def dense(size: int, out: int, activation: Any = None, **settings: Any) -> Any:
    return modules().Dense(size, out, activation_function=activation or torch.nn.Tanh(), **settings)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(transformer: Path, tmp_path: Path, activation: str) -> None:
    assert_same(tmp_path, saved(transformer, tmp_path, dense(SIZE, 10, getattr(torch.nn, activation)())))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("out", [SIZE, 10])
def test_residuals(transformer: Path, tmp_path: Path, bias: bool, out: int) -> None:
    layers = [dense(SIZE, out, bias=bias, use_residual=True), modules().Dropout(0.5), modules().Normalize()]
    assert_same(tmp_path, saved(transformer, tmp_path, *layers))


@pytest.mark.parametrize("dim", [None, 7])
def test_many_layers_settings_and_our_own_folder_of_them(transformer: Path, tmp_path: Path, dim: int | None) -> None:
    layers = [modules().LayerNorm(2 * SIZE), modules().Normalize(), dense(2 * SIZE, 10), modules().Normalize()]
    prompts = {"query": "a bee: ", "other": "c"}
    settings = {"prompts": prompts, "default_prompt_name": "query", "truncate_dim": dim}
    theirs = saved(transformer, tmp_path / "theirs", *layers, pooling=("max", "mean"), **settings)
    theirs.max_seq_length = 12
    theirs.save(str(tmp_path / "theirs"))
    read = read_folder(tmp_path / "theirs")
    sentence = read_settings(tmp_path / "theirs", SIZE, lowercases=True)
    write_folder(*read, tmp_path / "ours", card="", sentence=sentence)
    for folder in (tmp_path / "theirs", tmp_path / "ours"):
        assert_same(folder, theirs)
        assert_same(folder, theirs, prompt="a cage ")
        assert_same(folder, theirs, prompt="")
    again = st.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)
    with pytest.raises(BertjaxError, match="text 2 has 18 words, but only 10 .* the 12 tokens that the folder sets"):
        Encoder.load(tmp_path / "ours").encode(TEXTS, prompt="")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_prompts_that_are_not_pooled(transformer: Path, tmp_path: Path, pooling: str) -> None:
    theirs = saved(transformer, tmp_path, pooling=pooling, prompts={"ask": "a bee: "}, default_prompt_name="ask")
    theirs.set_pooling_include_prompt(False)
    theirs.save(str(tmp_path))
    assert_same(tmp_path, theirs)
    assert_same(tmp_path, theirs, prompt="")
