"""ModernBERT's folders. Its numbers are compared in tests/interop."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.config.recipes import load_config
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.folder import check_writable, read_folder, write_folder
from bertjax.hub.modernbert import read_config
from bertjax.hub.task_head import TaskHead
from bertjax.models.bert import Bert, params_template

KIND: dict[str, Any] = {"norm": "pre", "first_attention_norm": False, "positions": "rotary", "biases": False}
KIND |= {"hidden_act": "geglu", "token_types": 0, "rotary_theta": 160_000.0, "layer_norm_eps": 1e-5, "dropout": 0.0}
KIND |= {"pooler_act": "hidden_act", "pooler_norm": True, "classifier_bias": True}
LOCAL: dict[str, Any] = {"window": 4, "global_every": 3, "local_rotary_theta": 10_000.0}
CONFIG = BertConfig(40, 8, 4, 2, 12, 20, **KIND, **LOCAL)
WORDS = Tokenizer.train(["a crane is flying Over it"], min_frequency=1)
THEIRS = {"num_hidden_layers": 4, "hidden_size": 8, "num_attention_heads": 2}


@pytest.mark.parametrize("local", [LOCAL, {}], ids=["local", "global"])
def test_what_is_written_is_read(tmp_path: Path, local: dict[str, Any]) -> None:
    config = BertConfig(40, 8, 4, 2, 12, 20, **KIND, **local)
    rng = np.random.default_rng(0)
    template = {name: part for name, part in params_template(Bert(config)).items() if name not in ("pooler", "nsp")}
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), template)
    write_folder(config, params, WORDS, tmp_path / "out", card="")
    read = read_folder(tmp_path / "out")
    assert read.config == config
    assert {"pooler"} == read.params.keys() - params.keys()  # from which a run that learns labels starts
    jax.tree.map(np.testing.assert_array_equal, params, {part: read.params[part] for part in params})
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]


def test_old_and_new_spellings_say_the_same() -> None:
    old = {"global_attn_every_n_layers": 2, "global_rope_theta": 5.0, "local_rope_theta": 3.0, "local_attention": 8}
    kinds = ["full_attention", "sliding_attention"]
    rope = {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in zip(kinds, (5.0, 3.0), strict=True)}
    new = {"layer_types": kinds * 2, "rope_parameters": rope, "local_attention": 8}
    assert read_config(THEIRS | old) == read_config(THEIRS | new)
    config = read_config(THEIRS | new)
    assert [config.window_of(layer) for layer in range(4)] == [None, 4, None, 4]
    assert [config.rotary_theta_of(layer) for layer in range(4)] == [5.0, 3.0, 5.0, 3.0]
    assert read_config(THEIRS | {"layer_types": kinds[:1] * 4}).window == 0
    assert [read_config(THEIRS).window_of(layer) for layer in range(4)] == [None, 64, 64, None]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"norm_bias": True}, "norm_bias=True is not supported; only False is"),
        ({"hidden_activation": "relu"}, "hidden_activation='relu' is not supported"),
        ({"classifier_activation": "silu"}, "classifier_activation='silu' is not supported"),
        ({"local_attention": "128"}, "local_attention='128' is not a number of tokens"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types are not supported but for full_attention"),
        ({"layer_types": "all"}, "layer_types are not supported"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers=0 is not a number of layers"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type='yarn' is not supported"),
        ({"global_rope_theta": "1"}, "global_rope_theta='1' is not a number"),
        ({"mlp_dropout": None}, "are not all numbers"),
    ],
)
def test_what_cannot_be_computed_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BertjaxError) as caught:
        read_config(THEIRS | settings)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_recipe_of_its_shape_leaves_by_it_and_heads_for_labels_do_not(tmp_path: Path) -> None:
    model = load_config("modern-base").model
    assert check_writable(model, tmp_path / "out").name == "ModernBERT"
    with pytest.raises(BertjaxError, match="no place for the head for labels of tokens"):
        check_writable(CONFIG, tmp_path / "out", head=TaskHead("tag", Labels(("a", "b"))))
    with pytest.raises(
        BertjaxError, match="ModernBERT's format has no place for model.token_types=2 .it has no segments"
    ):
        check_writable(dataclasses.replace(CONFIG, token_types=2), tmp_path / "out")
