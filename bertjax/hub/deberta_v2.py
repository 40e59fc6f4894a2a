"""DeBERTa v2 and v3 (He et al. 2021, arXiv:2111.09543) in Hugging Face's format: BERT with disentangled attention.

Embeddings know no positions; attention compares tokens with the way between them too, by the projections that they
have themselves. A head for words is read under both of its names, and written under the older, transformers' default.
"""

import dataclasses
from collections.abc import Set
from typing import Any

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub import bert
from bertjax.hub.family import Carried, Family
from bertjax.hub.layout import ANSWER_HEAD, TOKEN_HEAD, Layout, text_head
from bertjax.hub.tensors import Tensors
from bertjax.ops.distances import NUM_WAYS

_FIXED = {  # the only value of each that we compute
    "relative_attention": True,
    "position_biased_input": False,
    "share_att_key": True,
    "position_buckets": NUM_WAYS,
    "norm_rel_ebd": "layer_norm",
}
_ABSENT = {"conv_kernel_size": 0, "z_steps": 0}  # likewise, where it is given at all
_DEFAULTS = {
    "vocab_size": 128100,
    "hidden_size": 1536,
    "num_hidden_layers": 24,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
    "layer_norm_eps": 1e-7,
}
_NEW_HEAD = {
    "lm_predictions.lm_head.dense.": "cls.predictions.transform.dense.",
    "lm_predictions.lm_head.LayerNorm.": "cls.predictions.transform.LayerNorm.",
    "lm_predictions.lm_head.bias": "cls.predictions.bias",
}
_LAYOUT = Layout(
    "deberta",
    linears={
        "attention/query": "attention.self.query_proj",
        "attention/key": "attention.self.key_proj",
        "attention/value": "attention.self.value_proj",
        "attention/out": "attention.output.dense",
        "ffn/in": "intermediate.dense",
        "ffn/out": "output.dense",
    },
    pooler=None,
    nsp=None,
    other_heads=("classifier.", "qa_outputs.", "mask_predictions.", "deberta.pooler."),
)


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with transformers' defaults for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    for key, value in _FIXED.items():
        if (given := theirs.get(key)) != value:
            raise BertjaxError(f"{key}={given!r} is not supported; only {value!r} is")
    for key, value in _ABSENT.items():
        if (given := theirs.get(key, value)) != value:
            raise BertjaxError(f"{key}={given!r} is not supported; only {value!r} is")
    kinds = theirs.get("pos_att_type") or []
    if sorted(kinds.split("|") if isinstance(kinds, str) else kinds) != ["c2p", "p2c"]:
        raise BertjaxError(f"pos_att_type={kinds!r} is not supported; only 'p2c|c2p' is")
    if (types := theirs.get("type_vocab_size", 0)) not in (0, 1, 2):
        raise BertjaxError(f"type_vocab_size={types!r} is not supported; only 0, 1 or 2 is")
    config = bert.read_config(_DEFAULTS | theirs | {"type_vocab_size": 2})
    if (most := theirs.get("max_relative_positions", -1)) not in (-1, 0, config.max_position):
        raise BertjaxError(f"max_relative_positions={most!r} is not supported; only -1 or {config.max_position} is")
    if (size := theirs.get("embedding_size", config.hidden_size)) != config.hidden_size:
        raise BertjaxError(f"embedding_size={size!r} is not supported; only hidden_size is")
    activation = theirs.get("hidden_act", "gelu")
    if (of_pooler := theirs.get("pooler_hidden_act", "gelu")) != activation:
        raise BertjaxError(f"pooler_hidden_act={of_pooler!r} is not supported; only that of hidden_act is")
    return dataclasses.replace(config, positions="disentangled", token_types=types, pooler_act="hidden_act")


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    written = bert.write_config(config, heads)
    del written["position_embedding_type"]
    return (
        written
        | _FIXED
        | {
            "architectures": [f"DebertaV2{'ForMaskedLM' if 'mlm' in heads else 'Model'}"],
            "pos_att_type": ["p2c", "c2p"],
            "max_relative_positions": -1,
            "pooler_hidden_act": written["hidden_act"],
            "pooler_hidden_size": config.hidden_size,
            "pooler_dropout": config.dropout,
            "legacy": True,
        }
    )


def names(config: BertConfig) -> dict[str, str]:
    """Returns for the path of every parameter here its name there, but for those it has no place for."""
    of_ways = {"relative_embedding": "rel_embeddings.weight"}
    of_ways |= {"relative_norm/scale": "LayerNorm.weight", "relative_norm/bias": "LayerNorm.bias"}
    return _LAYOUT.names(config) | {ours: f"deberta.encoder.{theirs}" for ours, theirs in of_ways.items()}


def after_reading(config: BertConfig, tensors: Tensors) -> Tensors:
    """Returns a folder's tensors under the older names, as of a BERT. Raises BertjaxError as that does."""
    named = {}
    for name, array in tensors.items():
        for new, old in _NEW_HEAD.items():
            name = name.replace(new, old)
        named[name] = array
    return _LAYOUT.after_reading(config, named)


DEBERTA_V2 = Family(
    name="DeBERTa v2",
    model_type="deberta-v2",
    architecture="DebertaV2",
    carried=bert.CARRIED
    | {
        "positions": Carried(("disentangled",), "its attention knows the ways between tokens"),
        "token_types": Carried((0, 1, 2), "it has no more segments"),
        "tie_word_embeddings": Carried((True,), "its word head is the token embedding"),
    },
    read_config=read_config,
    write_config=write_config,
    names=names,
    text_head=text_head("pooler.dense", "classifier", "hidden_act"),
    token_head=TOKEN_HEAD,
    answer_head=ANSWER_HEAD,
    after_reading=after_reading,
    before_writing=_LAYOUT.before_writing,
)
