"""Jina's embeddings v3 (Sturua et al. 2024, arXiv:2409.10173) in Hugging Face's format: XLM-RoBERTa, but rotary.

A pooler, which a folder without a head may have, is left out, as RoBERTa's is.
"""

import dataclasses
from collections.abc import Set
from typing import Any

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub import bert, roberta
from bertjax.hub.family import Carried, Family, read_theta
from bertjax.hub.layout import ANSWER_HEAD, TOKEN_HEAD, text_head

_DEFAULTS = {
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
    "layer_norm_eps": 1e-5,
}
_LAYOUT = roberta.LAYOUT._replace(
    layers="encoder.layers",
    linears={
        **dict.fromkeys(("attention/query", "attention/key", "attention/value"), "mixer.Wqkv"),
        "attention/out": "mixer.out_proj",
        "ffn/in": "mlp.fc1",
        "ffn/out": "mlp.fc2",
    },
    norms={"attention_norm": "norm1", "ffn_norm": "norm2"},
    embedding_norm="emb_ln",
)


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with Jina's for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    if (types := theirs.get("type_vocab_size", 1)) not in (1, 2):
        raise BertjaxError(f"type_vocab_size={types!r} is not supported; only 1 or 2 is")
    config = bert.read_config(_DEFAULTS | theirs | {"type_vocab_size": 2})
    if config.hidden_act != "gelu":
        raise BertjaxError(f"hidden_act={theirs['hidden_act']!r} is not supported; only 'gelu' is")
    features = config.hidden_size // config.num_heads
    if (given := theirs.get("head_dim")) not in (None, features):
        raise BertjaxError(f"head_dim={given!r} is not supported; only {features}, hidden_size / its heads, is")
    theta = read_theta(theirs.get("rope_parameters") or {}, "rope_theta", 20_000.0)
    return dataclasses.replace(config, positions="rotary", rotary_theta=theta, token_types=types)


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    written = bert.write_config(config, heads)
    del written["position_embedding_type"]
    return written | {
        "architectures": [f"JinaEmbeddingsV3{'ForMaskedLM' if 'mlm' in heads else 'Model'}"],
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_theta},
    }


JINA_EMBEDDINGS_V3 = Family(
    name="Jina embeddings v3",
    model_type="jina_embeddings_v3",
    architecture="JinaEmbeddingsV3",
    carried=bert.CARRIED
    | {
        "positions": Carried(("rotary",), "its positions are rotary"),
        "token_types": Carried((1, 2), "it has an embedding of segments"),
        "hidden_act": Carried(("gelu",), "its word head knows no other"),
    },
    read_config=read_config,
    write_config=write_config,
    names=_LAYOUT.names,
    text_head=text_head("classifier.dense", "classifier.out_proj", "tanh"),
    token_head=TOKEN_HEAD,
    answer_head=ANSWER_HEAD,
    after_reading=_LAYOUT.after_reading,
    before_writing=_LAYOUT.before_writing,
)
