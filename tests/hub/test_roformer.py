"""RoFormer's folders, and which family a model is written as. Its numbers are compared in tests/interop."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertjax.config import BertConfig
from bertjax.config.recipes import load_config
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.folder import FAMILIES, check_writable, read_folder, read_task_folder, write_folder
from bertjax.hub.roformer import read_config, to_theirs
from bertjax.hub.task_head import TaskHead
from bertjax.models.bert import Bert, params_template

CONFIG = BertConfig(40, 8, 2, 2, 12, 20, positions="rotary", nsp_features="pair")
READ = dataclasses.replace(CONFIG, nsp_features="cls", pooler_act="hidden_act")
WORDS = Tokenizer.train(["a crane is flying Over it"], min_frequency=1)
ANGLES = "roformer.encoder.embed_positions.weight"
TAGS = TaskHead("tag", Labels(("here", "there", "nowhere")))


def random_params(config: BertConfig) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params_template(Bert(config)))


def test_what_is_written_is_read_but_for_the_nsp_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    params = random_params(CONFIG)
    with caplog.at_level(logging.INFO):
        write_folder(CONFIG, params, WORDS, tmp_path / "out", card="")
    assert "RoFormer's format has no place for the NSP head, which is left out" in caplog.text
    read = read_folder(tmp_path / "out")
    assert read.config == READ
    jax.tree.map(np.testing.assert_array_equal, {k: params[k] for k in params.keys() - {"pooler", "nsp"}}, read.params)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["model_type"], written["architectures"]) == ("roformer", ["RoFormerForMaskedLM"])
    angles = load_file(tmp_path / "out" / "model.safetensors")[ANGLES]
    np.testing.assert_allclose(angles[3], [np.sin(3), np.sin(0.03), np.cos(3), np.cos(0.03)], rtol=1e-6)


def test_other_angles_are_refused(tmp_path: Path) -> None:
    write_folder(CONFIG, random_params(CONFIG), WORDS, tmp_path / "out", card="")
    file = tmp_path / "out" / "model.safetensors"
    tensors = load_file(file)
    for angles in (1.1 * tensors[ANGLES], tensors[ANGLES][1:]):
        save_file(tensors | {ANGLES: angles}, file)
        with pytest.raises(BertjaxError, match=f"{ANGLES} has other angles"):
            read_folder(tmp_path / "out")
    save_file({name: array for name, array in tensors.items() if name != ANGLES}, file)
    assert read_folder(tmp_path / "out").config == READ


def test_features_that_turn_together_stand_beside_each_other() -> None:
    bias = np.arange(8, dtype=np.float32)  # of two heads: (0, 2), (1, 3) and (4, 6), (5, 7) turn together here
    theirs = to_theirs(CONFIG, "block_0/attention/key/bias", bias)
    np.testing.assert_array_equal(theirs, [0, 2, 1, 3, 4, 6, 5, 7])
    np.testing.assert_array_equal(to_theirs(CONFIG, "block_0/attention/value/bias", bias), bias)


def test_labels_of_tokens_leave_as_they_are_and_labels_of_texts_by_its_own_head(tmp_path: Path) -> None:
    params = {k: v for k, v in random_params(CONFIG).items() if k not in ("mlm", "nsp", "pooler")}
    params["classifier"] = {"kernel": np.ones((8, 3), np.float32), "bias": np.ones(3, np.float32)}
    write_folder(CONFIG, params, WORDS, tmp_path / "tags", card="", head=TAGS)
    found = read_task_folder(tmp_path / "tags")
    np.testing.assert_array_equal(found.model.params["classifier"]["kernel"], params["classifier"]["kernel"])
    of_texts = TaskHead("classify", TAGS.targets)
    with pytest.raises(BertjaxError, match="no place for model.pooler_act=tanh .*; train with model.pooler_act=hidden"):
        check_writable(CONFIG, tmp_path / "out", head=of_texts, families=FAMILIES[1:2])
    check_writable(dataclasses.replace(CONFIG, pooler_act="hidden_act"), tmp_path / "out", head=of_texts)
    file = tmp_path / "tags" / "config.json"
    file.write_text(file.read_text().replace("ForTokenClassification", "ForSequenceClassification"))
    with pytest.raises(BertjaxError, match="has no whole head for its ForSequenceClassification"):
        read_task_folder(tmp_path / "tags")


@pytest.mark.parametrize(
    ("recipe", "family"), [("textbook", None), ("base", "BERT"), ("chapter", "RoFormer"), ("wikitext2", "RoFormer")]
)
def test_recipes_leave_by_the_first_format_that_carries_them(tmp_path: Path, recipe: str, family: str | None) -> None:
    model = load_config(recipe).model
    if family is not None:
        assert check_writable(model, tmp_path / "out").name == family
        return
    with pytest.raises(BertjaxError, match="BERT's format has no place for model.embedding_norm=false"):
        check_writable(model, tmp_path / "out")


@pytest.mark.parametrize(
    ("setting", "says"),
    [({"rotary_value": True}, "rotary_value=true"), ({"embedding_size": "4"}, "embedding_size=.4. is not a number")],
)
def test_what_cannot_be_computed_is_refused(setting: dict[str, Any], says: str) -> None:
    theirs = {"hidden_size": 8, "num_attention_heads": 2}
    assert read_config(theirs).max_position == 1536
    with pytest.raises(BertjaxError, match=says):
        read_config(theirs | setting)
