"""Every parameter of every model: how a mesh splits it, and whether it is decayed. None is left to chance."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from bertjax.config import BertConfig, LoraConfig, OptimConfig
from bertjax.errors import BertjaxError
from bertjax.hub.folder import FAMILIES, leaves
from bertjax.models.bert import Bert, params_template
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.lora import with_adapters
from bertjax.models.parts import depths, joined, split
from bertjax.models.tagger import TokenClassifier
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.sharding import by_name, make_mesh, spec_of
from bertjax.train.optimizer import decay_mask, make_optimizer
from bertjax.train.state import init_state

WHOLE = PartitionSpec()
COLUMNS, ROWS = PartitionSpec("fsdp", "tensor"), PartitionSpec("tensor", "fsdp")
HIDDEN, TABLE, INNER = PartitionSpec("fsdp", None), PartitionSpec(None, "fsdp"), PartitionSpec("tensor")

# For each parameter, of whatever layer: how it is split, and whether it is decayed.
ANSWERS = {
    "token_embedding": (ROWS, True),
    "segment_embedding": (TABLE, True),
    "position_embedding": (TABLE, True),
    "embedding_projection/kernel": (HIDDEN, True),
    "embedding_projection/bias": (WHOLE, False),
    "embedding_norm/scale": (WHOLE, False),
    "embedding_norm/bias": (WHOLE, False),
    "relative_embedding": (TABLE, True),
    "relative_norm/scale": (WHOLE, False),
    "relative_norm/bias": (WHOLE, False),
    "relative_attention_bias": (PartitionSpec(None, "tensor"), False),
    "block/attention/query/kernel": (COLUMNS, True),
    "block/attention/query/bias": (INNER, False),
    "block/attention/key/kernel": (COLUMNS, True),
    "block/attention/key/bias": (INNER, False),
    "block/attention/value/kernel": (COLUMNS, True),
    "block/attention/value/bias": (INNER, False),
    "block/attention/out/kernel": (ROWS, True),
    "block/attention/out/bias": (WHOLE, False),
    "block/attention_norm/scale": (WHOLE, False),
    "block/attention_norm/bias": (WHOLE, False),
    "block/ffn/in/kernel": (COLUMNS, True),
    "block/ffn/in/bias": (INNER, False),
    "block/ffn/gate/kernel": (COLUMNS, True),
    "block/ffn/gate/bias": (INNER, False),
    "block/ffn/out/kernel": (ROWS, True),
    "block/ffn/out/bias": (WHOLE, False),
    "block/ffn_norm/scale": (WHOLE, False),
    "block/ffn_norm/bias": (WHOLE, False),
    "final_norm/scale": (WHOLE, False),
    "final_norm/bias": (WHOLE, False),
    "pooler/kernel": (HIDDEN, True),
    "pooler/bias": (WHOLE, False),
    "pooler/norm/scale": (WHOLE, False),
    "pooler/norm/bias": (WHOLE, False),
    "nsp/kernel": (HIDDEN, True),
    "nsp/bias": (WHOLE, False),
    "classifier/kernel": (HIDDEN, True),
    "classifier/bias": (WHOLE, False),
    "mlm/hidden/kernel": (HIDDEN, True),
    "mlm/hidden/bias": (WHOLE, False),
    "mlm/norm/scale": (WHOLE, False),
    "mlm/norm/bias": (WHOLE, False),
    "mlm/bias": (INNER, False),
    "mlm/vocab/kernel": (COLUMNS, True),
    "mlm/vocab/bias": (INNER, False),
}
for linear in ("attention/query", "attention/key", "attention/value", "ffn/in", "ffn/gate"):
    ANSWERS |= {
        f"lora/block/{linear}/a": (HIDDEN, True),
        f"lora/block/{linear}/b": (PartitionSpec(None, "tensor"), True),
    }
for linear in ("attention/out", "ffn/out"):
    ANSWERS |= {
        f"lora/block/{linear}/a": (PartitionSpec("tensor", None), True),
        f"lora/block/{linear}/b": (TABLE, True),
    }

# Every value of every setting that a parameter may come or go with.
OPTIONS: dict[str, tuple[Any, ...]] = {
    "norm": ("post", "pre"),
    "norm_kind": ("layer", "rms"),
    "embedding_norm": (True, False),
    "positions": ("learned", "disentangled", "rotary"),
    "relative_attention_bias": (False, True),
    "embedding_size": (None, 16),
    "biases": (True, False),
    "block_biases": (True, False),
    "token_types": (2, 1, 0),
    "hidden_act": ("gelu", "gelu_tanh", "relu", "silu", "geglu", "swiglu"),
    "nsp_features": ("cls", "pair"),
    "pooler_norm": (False, True),
    "classifier_bias": (False, True),
    "first_attention_norm": (True, False),
    "tie_word_embeddings": (True, False),
}
SAME_PARAMETERS = {"vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_position"}
SAME_PARAMETERS |= {
    "attention",
    "dropout",
    "layer_norm_eps",
    "init",
    "init_scale",
    "attention_start",
    "pooler_act",
    "share_layers",
    "classifier_pooling",
    "rotary_theta",
    "window",
    "global_every",
    "local_rotary_theta",
    "frequency_bias",
    "cooccurrence_embedding",
    "family",
}

BERT = BertConfig(96, 32, 2, 4, 64, 16)
MODERN = dataclasses.replace(BERT, **{key: values[-1] for key, values in OPTIONS.items()})


def configs() -> dict[str, BertConfig]:
    """BERT and its opposite, and each with every option; then one of each family."""
    found = {"BERT": BERT, "modern": MODERN}
    for name, config in list(found.items()):
        for key, values in OPTIONS.items():
            for value in values:
                beside = {"relative_attention_bias": False} if value == "disentangled" else {}
                found[f"{name} {key}={value}"] = dataclasses.replace(config, **{key: value} | beside)
    for family in FAMILIES:
        carried = {key: carried.values[0] for key, carried in family.carried.items()}
        if carried.get("embedding_size") == 1:
            carried["embedding_size"] = 16  # which a mesh splits
        found[f"family {family.name}"] = dataclasses.replace(MODERN, **carried)
    return found


def adapted_template(model: Any) -> Any:
    """With all that may be adapted."""
    template = params_template(model)
    return jax.eval_shape(lambda params: with_adapters(params, LoraConfig(rank=2), jax.random.key(0)), template)


def answers(model: Any) -> dict[str, tuple[PartitionSpec, bool]]:
    params = adapted_template(model)
    specs = dict(leaves(by_name(params, make_mesh(2, 2, 2))))
    return {name: (specs[name].spec, decayed) for name, decayed in leaves(decay_mask(params))}


def test_every_setting_of_the_model_is_looked_at() -> None:
    """A new one goes to `OPTIONS` if it makes a parameter come or go, else to `SAME_PARAMETERS`."""
    assert {field.name for field in dataclasses.fields(BertConfig)} == OPTIONS.keys() | SAME_PARAMETERS


def every_model() -> dict[str, Any]:
    models: dict[str, Any] = {name: Bert(config) for name, config in configs().items()}
    models |= {f"classifier of {name}": SequenceClassifier(models[name], 3) for name in ("BERT", "modern")}
    return models | {f"tagger of {name}": TokenClassifier(models[name], 3) for name in ("BERT", "modern")}


def test_what_becomes_of_every_parameter_of_every_model() -> None:
    found = set()
    for name, model in every_model().items():
        for path, answer in answers(model).items():
            kind = re.sub(r"block_\d+", "block", path)
            assert answer == ANSWERS[kind], f"{path} of {name}"
            found.add(kind)
    assert found == ANSWERS.keys()


def test_how_deep_every_parameter_of_every_model_lies() -> None:
    for name, model in every_model().items():
        params = adapted_template(model)
        found, top = depths(params)
        blocks = getattr(model, "bert", model).config.num_blocks
        assert top == blocks + 1, name
        for path, depth in leaves(found):
            layer = re.match(r"(?:lora/)?block_(\d+)/", path)
            below = path.endswith("_embedding") or path.startswith(("embedding_", "relative_"))
            assert depth == (int(layer[1]) + 1 if layer else 0 if below else top), f"{path} of {name}"
        adapters, frozen = split(params, None)
        assert frozen is not None and not adapters.keys() - {"lora", "pooler", "nsp", "mlm", "classifier", "final_norm"}
        assert adapters["lora"] == params["lora"] and joined(adapters, frozen) == params
        del params["lora"]
        assert split(params, None) == (params, None)
        for freeze, learn in ((0, "block_0"), (1, "block_1"), (2, "classifier"))[: blocks + 1]:
            learning, frozen = split(params, freeze)
            assert frozen is not None and "token_embedding" in frozen
            assert learn in learning or freeze == blocks and not {"block_0", "block_1"} & learning.keys()
            assert dict(leaves(joined(learning, frozen))) == dict(leaves(params))
            assert not dict(leaves(learning)).keys() & dict(leaves(frozen)).keys()
    with pytest.raises(BertjaxError, match="optim.freeze_layers=1 leaves nothing to learn"):
        split({"token_embedding": 0, "block_0": {"ffn": {"in": {"kernel": 0}}}}, 1)
    with pytest.raises(BertjaxError, match="router/kernel fits none of the rules of .*give it one in DEPTHS"):
        depths({"router": {"kernel": jnp.ones((4, 4))}})


def test_a_parameter_without_a_rule_is_an_error_where_a_mesh_splits() -> None:
    params = {"block_0": {"ffn": {"in": {"kernel": jnp.ones((4, 4))}, "router": {"kernel": jnp.ones((4, 4))}}}}
    for sizes in ((4, 2, 1), (4, 1, 2)):
        with pytest.raises(BertjaxError, match="block_0/ffn/router/kernel fits none of the rules of .*mesh.fsdp=1 and"):
            by_name(params, make_mesh(*sizes))
    assert {leaf.spec for leaf in jax.tree.leaves(by_name(params, make_mesh(8, 1, 1)))} == {WHOLE}


def test_a_parameter_without_a_rule_of_decay_is_an_error() -> None:
    with pytest.raises(BertjaxError, match="block_0/mixing/weights fits none of the rules of .*give it one in DECAYED"):
        make_optimizer(OptimConfig(), steps=2).init({"block_0": {"mixing": {"weights": jnp.ones((2, 2))}}})


@pytest.mark.parametrize("path", ["mlm/out/bias", "token_embedding_2", "xattention/query/kernel", "kernel", ""])
def test_a_rule_is_of_a_whole_end_of_a_path(path: str) -> None:
    with pytest.raises(BertjaxError, match="fits none"):
        spec_of(path)


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb", "muon"])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_all_of_an_optimisers_state_is_placed(name: Any, clip_norm: float | None) -> None:
    optimizer = make_optimizer(OptimConfig(name=name, clip_norm=clip_norm), steps=2)
    state = jax.eval_shape(lambda: init_state(pretraining_objective(Bert(MODERN)), optimizer, 0, averaging=True))
    by_name(state, make_mesh(2, 2, 2))
