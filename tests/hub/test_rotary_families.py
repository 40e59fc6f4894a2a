"""Folders of Nomic BERT and Jina's embeddings: what is written is read. Their numbers are compared in tests/interop."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertjax.config import BertConfig
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.family import Family
from bertjax.hub.folder import (
    check_writable,
    read_folder,
    read_model_config,
    read_task_folder,
    write_folder,
)
from bertjax.hub.jina_embeddings_v3 import JINA_EMBEDDINGS_V3
from bertjax.hub.nomic_bert import NOMIC_BERT
from bertjax.hub.task_head import TaskHead
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import params_template

ROTARY = BertConfig(40, 8, 2, 2, 12, 20, positions="rotary", rotary_theta=500.0, dropout=0.0)
NOMIC = dataclasses.replace(ROTARY, hidden_act="swiglu", block_biases=False)
JINA = dataclasses.replace(ROTARY, token_types=1)
CASES = {"nomic_bert": (NOMIC_BERT, NOMIC, "attn"), "jina_embeddings_v3": (JINA_EMBEDDINGS_V3, JINA, "mixer")}
PIECES = Tokenizer.train(
    ["a crane is flying Over it"],
    min_frequency=1,
    rules=Rules("wordpiece", special=BERTS_SPECIAL_TOKENS),
    vocab_size=40,
)


def random_params(model: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params_template(model))


@pytest.mark.parametrize("model_type", CASES)
def test_what_is_written_is_read(model_type: str, tmp_path: Path) -> None:
    (family, config, attention), base = CASES[model_type], "roberta" if "jina" in model_type else model_type
    params = random_params(Bert(config))
    assert check_writable(config, tmp_path / "out") is family
    write_folder(config, params, PIECES, tmp_path / "out", card="")
    read = read_folder(tmp_path / "out")
    of_words = {part: leaf for part, leaf in params.items() if part not in ("pooler", "nsp")}
    assert read.config == config
    jax.tree.map(np.testing.assert_array_equal, read.params, of_words)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    queries, keys, values = np.split(tensors[f"{base}.encoder.layers.1.{attention}.Wqkv.weight"], 3)
    for part, rows in (("query", queries), ("key", keys), ("value", values)):
        np.testing.assert_array_equal(rows.T, params["block_1"]["attention"][part]["kernel"])
    # As saved without a word head: no base before the names, and a pooler, which is left out.
    bare = {name.removeprefix(f"{base}."): array for name, array in tensors.items() if name.startswith(base)}
    save_file(bare | {"pooler.dense.bias": np.ones(8, np.float32)}, tmp_path / "out" / "model.safetensors")
    assert read_folder(tmp_path / "out").params.keys() == of_words.keys() - {"mlm"}

    head = TaskHead("classify", Labels(("a", "b", "c")))
    params = random_params(SequenceClassifier(Bert(config), 3))
    write_folder(config, params, PIECES, tmp_path / "labels", card="", head=head)
    model, found, _ = read_task_folder(tmp_path / "labels")
    assert (model.config, found) == (config, head)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)


def test_settings_that_are_left_out_are_the_familys_and_nomics_old_names_are_read() -> None:
    nomic = BertConfig(30528, max_position=2048, positions="rotary", rotary_theta=1000.0, dropout=0.0)
    nomic = dataclasses.replace(nomic, hidden_act="swiglu", block_biases=False)
    assert NOMIC_BERT.read_config({}) == nomic
    jina = BertConfig(250002, 1024, 24, 16, 4096, 8194, layer_norm_eps=1e-5, positions="rotary", token_types=1)
    assert JINA_EMBEDDINGS_V3.read_config({}) == dataclasses.replace(jina, rotary_theta=20_000.0)
    old = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_inner": 12, "n_positions": 20, "vocab_size": 40}
    old |= {"activation_function": "swiglu", "rotary_emb_base": 500, "resid_pdrop": 0.0, "layer_norm_epsilon": 1e-12}
    old |= {"prenorm": False, "rotary_emb_fraction": 1.0, "rotary_scaling_factor": None}
    assert NOMIC_BERT.read_config(old) == NOMIC


@pytest.mark.parametrize(
    ("family", "theirs", "complaint"),
    [
        (NOMIC_BERT, {"prenorm": True}, "prenorm=True is not supported; only False is"),
        (NOMIC_BERT, {"rotary_scaling_factor": 2}, "rotary_scaling_factor=2 is not supported; only None is"),
        (NOMIC_BERT, {"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn' is not supported; only 'default'"),
        (NOMIC_BERT, {"head_dim": 32}, "head_dim=32 is not supported; only 64, hidden_size / its heads, is"),
        (NOMIC_BERT, {"hidden_act": "relu"}, "hidden_act='relu' is not supported; only silu, swiglu, gelu, geglu are"),
        (JINA_EMBEDDINGS_V3, {"hidden_act": "relu"}, "hidden_act='relu' is not supported; only 'gelu' is"),
        (JINA_EMBEDDINGS_V3, {"rope_parameters": {"rope_theta": "1"}}, "rope_theta='1' is not a number"),
        (JINA_EMBEDDINGS_V3, {"type_vocab_size": 3}, "type_vocab_size=3 is not supported; only 1 or 2 is"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    tmp_path: Path, family: Family, theirs: dict[str, Any], complaint: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family.model_type} | theirs))
    with pytest.raises(BertjaxError, match=f"config.json: .*{complaint}"):
        read_model_config(tmp_path)


@pytest.mark.parametrize("model_type", ["neobert", "eurobert", "deberta"])
def test_other_families_are_refused_by_name(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    known = r"only BERT \('bert'\), .*Nomic BERT \('nomic_bert'\), .*can be read"
    with pytest.raises(BertjaxError, match=f"is a '{model_type}' model; {known}"):
        read_model_config(tmp_path)
