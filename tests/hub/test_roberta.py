"""RoBERTa and its likes: what is written is read. Their numbers are compared in tests/interop."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from whole_tokenizers import ROLES, bpe, write

from bertjax.config import BertConfig
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.export import export_folder
from bertjax.hub.family import Family
from bertjax.hub.folder import check_writable, read_folder, read_model_config, read_task_folder, write_folder
from bertjax.hub.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from bertjax.hub.task_head import TaskHead
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import params_template

CONFIG = BertConfig(300, 8, 2, 2, 12, 20, token_types=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(write(tmp_path_factory.mktemp("bpe"), bpe(), tokenizer_class="RobertaTokenizer", **ROLES))


def random_params(model: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params_template(model))


@pytest.mark.parametrize("family", [ROBERTA, XLM_ROBERTA, CAMEMBERT], ids=lambda family: family.name)
def test_what_is_written_is_read_and_written_anew_alike(tmp_path: Path, tokenizer: Tokenizer, family: Family) -> None:
    params = random_params(Bert(CONFIG))
    write_folder(CONFIG, params, tokenizer, tmp_path / "out", card="", families=(family,))
    read = read_folder(tmp_path / "out")
    assert read.config == CONFIG and read.tokenizer.template == tokenizer.template
    of_words = {part: leaves for part, leaves in params.items() if part not in ("pooler", "nsp")}
    jax.tree.map(np.testing.assert_array_equal, of_words, read.params)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["model_type"], written["architectures"]) == (
        family.model_type,
        [f"{family.architecture}ForMaskedLM"],
    )
    assert (written["max_position_embeddings"], written["pad_token_id"], written["type_vocab_size"]) == (22, 1, 1)
    export_folder(tmp_path / "out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == written


def test_no_token_has_the_first_two_positions(tmp_path: Path, tokenizer: Tokenizer) -> None:
    params = random_params(Bert(CONFIG))
    write_folder(CONFIG, params, tokenizer, tmp_path / "out", card="")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    table = tensors["roberta.embeddings.position_embeddings.weight"]
    assert table.shape == (22, 8) and not table[:2].any()
    np.testing.assert_array_equal(table[2:], params["position_embedding"])
    # What theirs trained there is left, as is the pooler of a folder without a word head.
    table[:2] = 7
    tensors["roberta.pooler.dense.weight"] = np.ones((8, 8), np.float32)
    save_file(tensors, tmp_path / "out" / "model.safetensors")
    found = read_folder(tmp_path / "out").params
    np.testing.assert_array_equal(found["position_embedding"], params["position_embedding"])
    assert "pooler" not in found


def test_padding_must_have_its_number(tmp_path: Path) -> None:
    rules = Rules("wordpiece", special=BERTS_SPECIAL_TOKENS)
    pieces = Tokenizer.train(["a crane is flying"], min_frequency=1, rules=rules, vocab_size=40)
    assert check_writable(CONFIG, tmp_path / "out") is ROBERTA
    with pytest.raises(BertjaxError, match="RoBERTa's format has padding as token 1, and this tokenizer as 0; train"):
        write_folder(CONFIG, random_params(Bert(CONFIG)), pieces, tmp_path / "out", card="")
    assert not (tmp_path / "out").exists()


def test_a_head_for_labels_of_texts_is_read_as_it_was_written(tmp_path: Path, tokenizer: Tokenizer) -> None:
    head = TaskHead("classify", Labels(("a", "b", "c")))
    params = random_params(SequenceClassifier(Bert(CONFIG), 3))
    write_folder(CONFIG, params, tokenizer, tmp_path / "out", card="", head=head)
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert {"classifier.dense.weight", "classifier.out_proj.bias"} <= names
    model, found, _ = read_task_folder(tmp_path / "out")
    assert (model.config, found) == (CONFIG, head)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)


@pytest.mark.parametrize(
    ("theirs", "complaint"),
    [
        ({"pad_token_id": 0}, "pad_token_id=0 is not supported; only 1 is"),
        ({"type_vocab_size": 3}, "type_vocab_size=3 is not supported; only 1 or 2 is"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported; only 'gelu' is"),
        ({"max_position_embeddings": 2}, "max_position_embeddings=2 leaves no position for a token"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers='two' is not a number"),
    ],
)
def test_what_cannot_be_computed_is_refused(tmp_path: Path, theirs: dict[str, Any], complaint: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", "type_vocab_size": 1} | theirs))
    with pytest.raises(BertjaxError, match=f"config.json: {complaint}"):
        read_model_config(tmp_path)


def test_settings_that_are_left_out_are_the_familys() -> None:
    base = BertConfig(50265, token_types=2, max_position=510)
    assert ROBERTA.read_config({}) == base
    published: dict[str, Any] = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    wanted = dataclasses.replace(base, max_position=512, token_types=1, layer_norm_eps=1e-5)
    assert ROBERTA.read_config(published) == wanted
