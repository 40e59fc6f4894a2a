"""ALBERT (Lan et al. 2020, arXiv:1909.11942) in Hugging Face's format: BERT whose layers share one's parameters.

Its embeddings are not as wide as its layers, and its head for pairs tells whether two sentences are in order. Label 0
means there that they are, which is label 1 here.
"""

import dataclasses
from collections.abc import Set
from typing import Any

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub import bert
from bertjax.hub.family import Carried, Family
from bertjax.hub.layout import ANSWER_HEAD, TOKEN_HEAD, Layout, text_head

_LAYOUT = Layout(
    "albert",
    "encoder.albert_layer_groups.0.albert_layers",
    linears={
        "attention/query": "attention.query",
        "attention/key": "attention.key",
        "attention/value": "attention.value",
        "attention/out": "attention.dense",
        "ffn/in": "ffn",
        "ffn/out": "ffn_output",
    },
    norms={"attention_norm": "attention.LayerNorm", "ffn_norm": "full_layer_layer_norm"},
    projection="encoder.embedding_hidden_mapping_in",
    pooler="pooler",
    nsp="sop_classifier.classifier",
    hidden="predictions.dense",
    norm="predictions.LayerNorm",
    decoder="predictions.decoder",
    bias="predictions.bias",
)
_TEXT_HEAD = text_head(None, "classifier", "tanh")
_DEFAULTS = {"vocab_size": 30000, "hidden_size": 4096, "num_attention_heads": 64, "intermediate_size": 16384}
_GROUPS = {"num_hidden_groups": 1, "inner_group_num": 1}  # of layers that share parameters, and layers in a group


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with ALBERT's defaults for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    for key, value in _GROUPS.items():
        if theirs.get(key, value) != value:
            raise BertjaxError(f"{key}={theirs[key]!r} is not supported; only {value!r} is")
    settings = _DEFAULTS | {"hidden_act": "gelu_new", "hidden_dropout_prob": 0.0} | theirs
    config = bert.with_embedding_size(bert.read_config(settings), theirs.get("embedding_size", 128))
    if config.embedding_size is None:
        raise BertjaxError(f"embedding_size={config.hidden_size} is not supported where hidden_size is the same")
    return dataclasses.replace(config, share_layers=True)


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    written = bert.write_config(config, heads)
    del written["position_embedding_type"]
    architecture = {("mlm", "nsp"): "ForPreTraining", ("mlm",): "ForMaskedLM"}.get(tuple(sorted(heads - {"pooler"})))
    named = {"architectures": [f"Albert{architecture or 'Model'}"], "embedding_size": config.embedding_size}
    return written | named | _GROUPS


ALBERT = Family(
    name="ALBERT",
    model_type="albert",
    architecture="Albert",
    carried=bert.CARRIED
    | {
        "share_layers": Carried((True,), "its layers share one's parameters"),
        "embedding_size": Carried(range(1, 1 << 17), "its embeddings are not as wide as its layers", "128"),
    }
    | dict(_TEXT_HEAD.carried),  # whose pooler the head for pairs shares
    read_config=read_config,
    write_config=write_config,
    names=_LAYOUT.names,
    text_head=_TEXT_HEAD,
    token_head=TOKEN_HEAD,
    answer_head=ANSWER_HEAD,
    to_ours=bert.to_ours,
    to_theirs=bert.to_theirs,
    after_reading=_LAYOUT.after_reading,
    before_writing=_LAYOUT.before_writing,
)
