"""Families with learned positions: what is written is read. Their numbers are compared in tests/interop."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertjax.cli.main import main
from bertjax.config import BertConfig
from bertjax.config.model import Family as ModelType
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.albert import ALBERT
from bertjax.hub.distilbert import DISTILBERT
from bertjax.hub.electra import ELECTRA
from bertjax.hub.export import export_folder
from bertjax.hub.family import Family
from bertjax.hub.folder import (
    FAMILIES,
    check_writable,
    families_for,
    read_family,
    read_folder,
    read_model_config,
    read_task_folder,
    write_folder,
)
from bertjax.hub.modernbert import MODERNBERT
from bertjax.hub.roformer import ROFORMER
from bertjax.hub.task_head import TaskHead
from bertjax.models.bert import Bert, params_template
from bertjax.models.classifier import SequenceClassifier

TINY = BertConfig(40, 8, 2, 2, 12, 20)
HIDDEN_ACT = dataclasses.replace(TINY, pooler_act="hidden_act")
BARE = dataclasses.replace(TINY, token_types=0)
MODERN = BertConfig(40, 8, 2, 2, 12, 20, norm="pre", first_attention_norm=False, positions="rotary", token_types=0)
MODERN = dataclasses.replace(MODERN, hidden_act="geglu", biases=False, pooler_act="hidden_act", pooler_norm=True)
MODERN = dataclasses.replace(MODERN, classifier_pooling="mean", classifier_bias=True)
PIECES = Tokenizer.train(
    ["a crane is flying Over it"],
    min_frequency=1,
    rules=Rules("wordpiece", special=BERTS_SPECIAL_TOKENS),
    vocab_size=40,
)
CASES: dict[str, tuple[Family, BertConfig, str]] = {
    "DistilBERT": (DISTILBERT, BARE, "distilbert.transformer.layer.1.attention.q_lin.weight"),
    "DistilBERT untied": (
        DISTILBERT,
        dataclasses.replace(BARE, tie_word_embeddings=False, hidden_act="relu", dropout=0.2),
        "vocab_projector.bias",
    ),
    "ELECTRA": (ELECTRA, TINY, "electra.encoder.layer.1.attention.self.query.weight"),
    "ELECTRA narrow": (ELECTRA, dataclasses.replace(TINY, embedding_size=4), "electra.embeddings_project.weight"),
    "ALBERT": (
        ALBERT,
        dataclasses.replace(TINY, embedding_size=4, share_layers=True),
        "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output.weight",
    ),
    "ELECTRA untied": (ELECTRA, dataclasses.replace(TINY, tie_word_embeddings=False), "generator_lm_head.bias"),
}


def random_params(config: BertConfig, *lacking: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params_template(Bert(config)))
    return {part: leaf for part, leaf in made.items() if part not in lacking}


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_read_and_written_anew_alike(tmp_path: Path, case: str) -> None:
    family, config, name = CASES[case]
    lacking = ("pooler", "nsp")  # which ALBERT alone has a place for, and writes as another class
    params = random_params(config, *lacking)
    write_folder(config, params, PIECES, tmp_path / "out", card="", families=(family,))
    read = read_folder(tmp_path / "out")
    acts = {
        "DistilBERT": "relu",
        "ELECTRA": "hidden_act",
        "ALBERT": "tanh",
    }  # of a head for labels of texts, which this one lacks
    assert read.config == dataclasses.replace(config, pooler_act=acts[family.name])
    jax.tree.map(np.testing.assert_array_equal, params, read.params)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert name in tensors and len(tensors) == len(jax.tree.leaves(read.params))
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["model_type"], written["architectures"]) == (
        family.model_type,
        [f"{family.architecture}ForMaskedLM"],
    )
    export_folder(tmp_path / "out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == written
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == tensors.keys() and all(np.array_equal(again[key], tensors[key]) for key in tensors)


def test_segments_are_named_to_other_tools_where_the_model_has_them(tmp_path: Path) -> None:
    for (family, config, _), segments in ((CASES["DistilBERT"], False), (CASES["ELECTRA"], True)):
        write_folder(config, random_params(config), PIECES, tmp_path / family.name, card="", families=(family,))
        settings = json.loads((tmp_path / family.name / "tokenizer_config.json").read_text())
        assert ("token_type_ids" in settings["model_input_names"]) == segments


def test_a_model_without_segments_leaves_as_distilbert(tmp_path: Path) -> None:
    assert check_writable(BARE, tmp_path / "out").name == "DistilBERT"
    assert check_writable(TINY, tmp_path / "out").name == "BERT"
    odd = dataclasses.replace(BARE, layer_norm_eps=1e-5)
    with pytest.raises(BertjaxError, match="BERT's format has no place for model.token_types=0"):
        check_writable(odd, tmp_path / "out")


def test_a_family_may_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert get_args(ModelType) == tuple(family.model_type for family in FAMILIES)
    assert [family.model_type for family in families_for("xlm-roberta")[:2]] == ["xlm-roberta", "bert"]
    write_folder(TINY, random_params(TINY), PIECES, tmp_path / "bert", card="")
    export = ["export", str(tmp_path / "bert"), str(tmp_path / "out"), "--family"]
    for asked, complaint in (
        ("albert", "ALBERTs format has no place for model.share_layers=false (its layers share ones parameters), mo"),
        ("roberta", "RoBERTas format has padding as token 1, and this tokenizer as 0"),
        ("gpt2", "invalid choice: gpt2 (choose from bert, roformer, modernbert, distilbert, electra, albert, ro"),
    ):
        assert main([*export, asked]) == 2
        assert complaint in capsys.readouterr().err.replace("'", "")
    assert main([*export, "electra", "--format", "stablehlo"]) == 2
    assert not (tmp_path / "out").exists()
    assert main([*export, "electra"]) == 0
    assert read_family(tmp_path / "out") is ELECTRA
    there, found = (read_folder(tmp_path / name) for name in ("bert", "out"))
    assert found.params.keys() == there.params.keys() - {"pooler", "nsp"}
    jax.tree.map(np.testing.assert_array_equal, found.params, {part: there.params[part] for part in found.params})


# Families whose labels of texts have a head of their own: settings, and names of its first and last layer.
OF_TEXTS: dict[str, tuple[Family, BertConfig, str, str]] = {
    "DistilBERT": (DISTILBERT, dataclasses.replace(BARE, pooler_act="relu"), "pre_classifier", "classifier"),
    "ELECTRA": (ELECTRA, HIDDEN_ACT, "classifier.dense", "classifier.out_proj"),
    "RoFormer": (
        ROFORMER,
        dataclasses.replace(HIDDEN_ACT, positions="rotary"),
        "classifier.dense",
        "classifier.out_proj",
    ),
    "ModernBERT": (MODERNBERT, MODERN, "head.dense", "classifier"),
}


@pytest.mark.parametrize("case", OF_TEXTS)
def test_heads_for_labels_of_texts_are_read_as_they_were_written(tmp_path: Path, case: str) -> None:
    family, config, first, last = OF_TEXTS[case]
    head = TaskHead("classify", Labels(("a", "b", "c")))
    assert check_writable(config, tmp_path / "out", head=head) is family
    other = dataclasses.replace(config, pooler_act="tanh")
    with pytest.raises(BertjaxError, match="no place for model.pooler_act=tanh"):
        check_writable(other, tmp_path / "out", head=head, families=(family,))
    rng, template = np.random.default_rng(0), params_template(SequenceClassifier(Bert(config), 3))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), template)
    write_folder(config, params, PIECES, tmp_path / "out", card="", head=head)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(tensors[f"{first}.weight"], params["pooler"]["kernel"].T)
    np.testing.assert_array_equal(tensors[f"{last}.weight"], params["classifier"]["kernel"].T)
    model, found, _ = read_task_folder(tmp_path / "out")
    assert (model.config, found) == (config, head)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)
    # What learns other labels starts from the pooler, and what makes vectors needs none of it.
    of_start = read_folder(tmp_path / "out").params
    jax.tree.map(np.testing.assert_array_equal, of_start, {k: v for k, v in params.items() if k != "classifier"})
    del tensors[f"{first}.weight"]
    save_file(tensors, tmp_path / "out" / "model.safetensors")
    assert read_folder(tmp_path / "out").params.keys() == params.keys() - {"pooler", "classifier"}
    with pytest.raises(BertjaxError, match="has no whole head for its ForSequenceClassification"):
        read_task_folder(tmp_path / "out")


def test_modernberts_words_and_labels_share_what_is_below_them(tmp_path: Path) -> None:
    params = random_params(MODERN, "pooler", "nsp")
    write_folder(MODERN, params, PIECES, tmp_path / "out", card="")
    found = read_folder(tmp_path / "out").params
    pooler, hidden = found.pop("pooler"), {**params["mlm"]["hidden"], "norm": params["mlm"]["norm"]}
    jax.tree.map(np.testing.assert_array_equal, pooler, hidden)
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize(
    ("theirs", "complaint"),
    [
        ({"model_type": "distilbert", "activation": "mish"}, "activation='mish' is not supported"),
        ({"model_type": "distilbert", "dim": "8"}, "dim='8' is not a number"),
        ({"model_type": "albert", "num_hidden_groups": 2}, "num_hidden_groups=2 is not supported; only 1 is"),
        ({"model_type": "albert", "hidden_size": 128, "num_attention_heads": 2}, "embedding_size=128 is not supported"),
        ({"model_type": "electra", "embedding_size": "64"}, "embedding_size='64' is not a number"),
        ({"model_type": "electra", "embedding_size": 256, "hidden_act": "relu"}, "hidden_act='relu' is not supported"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_the_familys_words(
    tmp_path: Path, theirs: dict[str, Any], complaint: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(theirs))
    with pytest.raises(BertjaxError, match=f"config.json: {complaint}"):
        read_model_config(tmp_path)


def test_settings_that_are_left_out_are_the_familys() -> None:
    assert DISTILBERT.read_config({}) == BertConfig(30522, num_layers=6, token_types=0, pooler_act="relu")
    small: Any = {"hidden_size": 256, "num_heads": 4, "intermediate_size": 1024, "pooler_act": "hidden_act"}
    assert ELECTRA.read_config({}) == BertConfig(30522, **small, embedding_size=128)
    assert ELECTRA.read_config({"embedding_size": 256}) == BertConfig(30522, **small)
