"""The seam of `hub` from outside: a family of a test's own, with other names, other settings and stacked weights."""

import dataclasses
import json
from collections.abc import Set
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from drawn_params import drawn_params
from safetensors.numpy import load_file

from bertjax.config import BertConfig
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.family import Carried, Family, read_settings
from bertjax.hub.folder import FAMILIES, leaves, read_folder, read_model_config, write_folder
from bertjax.hub.tensors import Tensors
from bertjax.models.bert import Bert, params_template

# The toy: pre-norm, rotary, gated, without biases; q, k and v in one matrix; words alone are predicted.
SETTINGS = {"vocab_size": "words", "hidden_size": "dim", "num_layers": "depth", "num_heads": "heads"}
SETTINGS |= {"intermediate_size": "inner", "max_position": "longest"}
KIND: dict[str, Any] = {"norm": "pre", "norm_kind": "rms", "positions": "rotary", "biases": False}
KIND |= {"hidden_act": "geglu", "embedding_norm": False}


def read_config(theirs: dict[str, Any]) -> BertConfig:
    if theirs["gate"] != "gelu":
        raise BertjaxError(f"gate={theirs['gate']!r} is not supported; only 'gelu' is")
    return BertConfig(**read_settings(theirs, SETTINGS), **KIND)


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    return {theirs: getattr(config, ours) for ours, theirs in SETTINGS.items()} | {"gate": "gelu"}


def names(config: BertConfig) -> dict[str, str]:
    table = {"token_embedding": "E", "segment_embedding": "S", "final_norm/scale": "norm"}
    for n in range(config.num_layers):
        table |= {f"block_{n}/attention/{part}/kernel": f"{n}.qkv" for part in ("query", "key", "value")}
        table |= {f"block_{n}/ffn/{part}/kernel": f"{n}.wi" for part in ("in", "gate")}
        table |= {f"block_{n}/attention/out/kernel": f"{n}.o", f"block_{n}/ffn/out/kernel": f"{n}.wo"}
        table |= {f"block_{n}/{part}_norm/scale": f"{n}.norm_{part}" for part in ("attention", "ffn")}
    return table | {"mlm/hidden/kernel": "head.dense", "mlm/norm/scale": "head.norm", "mlm/bias": "head.bias"}


def with_version(config: BertConfig, tensors: Tensors) -> Tensors:
    return tensors | {"version": np.array([2.0], np.float32)}


def without_version(config: BertConfig, tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != "version"}


TOY = Family(
    architecture="Toy",
    text_head=None,
    token_head=None,
    answer_head=None,
    name="Toy",
    model_type="toy",
    carried={key: Carried((value,), "it has no other") for key, value in KIND.items()},
    read_config=read_config,
    write_config=write_config,
    names=names,
    after_reading=without_version,
    before_writing=with_version,
)

CONFIG = BertConfig(40, 8, 2, 2, 12, 20, **KIND)
WORDS = Tokenizer.train(["a crane is flying Over it"], min_frequency=1)
KNOWN = (*FAMILIES, TOY)


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    template = params_template(Bert(CONFIG))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), template)


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, params: dict[str, Any]) -> None:
    folder = tmp_path / "toy"
    write_folder(CONFIG, params, WORDS, folder, card="", families=(TOY,))
    read = read_folder(folder, KNOWN)
    assert read.config == CONFIG == read_model_config(folder, KNOWN)
    without_heads = {name: part for name, part in params.items() if name not in ("pooler", "nsp")}
    jax.tree.map(np.testing.assert_array_equal, without_heads, read.params)
    assert json.loads((folder / "config.json").read_text())["dim"] == 8
    there, attention = load_file(folder / "model.safetensors"), params["block_1"]["attention"]
    assert set(there) == {*names(CONFIG).values(), "version"} and there["1.qkv"].shape == (24, 8)
    np.testing.assert_array_equal(there["1.qkv"][8:16], attention["key"]["kernel"].T)


def test_only_families_that_are_known_are_read(tmp_path: Path, params: dict[str, Any]) -> None:
    write_folder(CONFIG, params, WORDS, tmp_path / "toy", card="", families=(TOY,))
    known = ", ".join(rf"{family.name} \('{family.model_type}'\)" for family in FAMILIES)
    with pytest.raises(BertjaxError, match=f"is a 'toy' model; only {known} can be read"):
        read_folder(tmp_path / "toy")


def test_what_a_family_says_comes_with_the_place(tmp_path: Path, params: dict[str, Any]) -> None:
    write_folder(CONFIG, params, WORDS, tmp_path / "toy", card="", families=(TOY,))
    file = tmp_path / "toy" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"gate": "silu"}))
    with pytest.raises(BertjaxError) as caught:
        read_folder(tmp_path / "toy", KNOWN)
    assert str(caught.value) == f"{file}: gate='silu' is not supported; only 'gelu' is"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"gate": "gelu", "dim": 12}))
    with pytest.raises(BertjaxError, match=r"E is \[40, 8\], not what its config.json says"):
        read_folder(tmp_path / "toy", KNOWN)


def test_a_model_that_is_not_of_the_family_is_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, norm="post")
    with pytest.raises(BertjaxError, match="Toy's format has no place for model.norm=post .it has no other.; train"):
        write_folder(config, drawn_params(Bert(config)), WORDS, tmp_path / "toy", card="", families=(TOY,))


@pytest.mark.parametrize("family", KNOWN, ids=[family.name for family in KNOWN])
def test_a_family_names_every_parameter_but_heads(family: Family) -> None:
    """For every way in which a model that it carries can have parameters."""
    plain = dataclasses.replace(CONFIG, **{key: carried.values[0] for key, carried in family.carried.items()})
    tied_alone = family is TOY or family.carried.get("tie_word_embeddings") is not None
    for tied in (True,) if tied_alone else (True, False):
        config = dataclasses.replace(plain, tie_word_embeddings=tied)
        paths = {path for path, _ in leaves(params_template(Bert(config)))}
        missing = paths - family.names(config).keys()
        assert family.names(config).keys() <= paths and {path.split("/")[0] for path in missing} <= {"pooler", "nsp"}
