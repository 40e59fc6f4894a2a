"""MPNet (Song et al. 2020, arXiv:2004.09297) in Hugging Face's format: BERT whose attention has a bias of distances.

All layers share the bias. Positions are numbered as RoBERTa's are, there are no segments, and a pooler is left out.
"""

import dataclasses
from collections.abc import Set
from typing import Any

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub import bert, roberta
from bertjax.hub.family import Carried, Family
from bertjax.hub.layout import ANSWER_HEAD, TOKEN_HEAD, text_head
from bertjax.ops.distances import NUM_BUCKETS

_BUCKETS = "relative_attention_num_buckets"
_LAYOUT = roberta.LAYOUT._replace(
    base="mpnet",
    linears={
        "attention/query": "attention.attn.q",
        "attention/key": "attention.attn.k",
        "attention/value": "attention.attn.v",
        "attention/out": "attention.attn.o",
        "ffn/in": "intermediate.dense",
        "ffn/out": "output.dense",
    },
    norms={"attention_norm": "attention.LayerNorm", "ffn_norm": "output.LayerNorm"},
    other_heads=("classifier.", "qa_outputs.", "mpnet.pooler."),
)


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with MPNet's defaults for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    if (buckets := theirs.get(_BUCKETS, NUM_BUCKETS)) != NUM_BUCKETS:
        raise BertjaxError(f"{_BUCKETS}={buckets!r} is not supported; only {NUM_BUCKETS} is")
    config = roberta.read_config({"vocab_size": 30527} | theirs | {"type_vocab_size": 1})
    return dataclasses.replace(config, token_types=0, relative_attention_bias=True)


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    written = roberta.write_config(config, heads, "MPNet")
    del written["type_vocab_size"], written["position_embedding_type"]
    return written | {_BUCKETS: NUM_BUCKETS}


def names(config: BertConfig) -> dict[str, str]:
    """Returns for the path of every parameter here its name there, but for those it has no place for."""
    return _LAYOUT.names(config) | {"relative_attention_bias": "mpnet.encoder.relative_attention_bias.weight"}


MPNET = Family(
    name="MPNet",
    model_type="mpnet",
    architecture="MPNet",
    carried=bert.CARRIED
    | {
        "relative_attention_bias": Carried((True,), "its attention has a bias of distances"),
        "token_types": Carried((0,), "it has no segments"),
        "hidden_act": Carried(("gelu",), "its word head knows no other"),
    },
    read_config=read_config,
    write_config=write_config,
    names=names,
    text_head=text_head("classifier.dense", "classifier.out_proj", "tanh"),
    token_head=TOKEN_HEAD,
    answer_head=ANSWER_HEAD,
    to_ours=roberta.to_ours,
    to_theirs=roberta.to_theirs,
    after_reading=_LAYOUT.after_reading,
    before_writing=_LAYOUT.before_writing,
    pad=roberta.PAD,
)
