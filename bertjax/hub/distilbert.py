"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108) in Hugging Face's format: BERT without segments, pooler and NSP."""

import dataclasses
from collections.abc import Set
from typing import Any

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub import bert
from bertjax.hub.family import Carried, Family
from bertjax.hub.layout import ANSWER_HEAD, TOKEN_HEAD, Layout, text_head

# For the names of BERT's settings those here.
_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "hidden_act": "activation",
}
_LACKING = ("layer_norm_eps", "type_vocab_size", "position_embedding_type")
_LAYOUT = Layout(
    "distilbert",
    "transformer.layer",
    linears={
        "attention/query": "attention.q_lin",
        "attention/key": "attention.k_lin",
        "attention/value": "attention.v_lin",
        "attention/out": "attention.out_lin",
        "ffn/in": "ffn.lin1",
        "ffn/out": "ffn.lin2",
    },
    norms={"attention_norm": "sa_layer_norm", "ffn_norm": "output_layer_norm"},
    pooler=None,
    nsp=None,
    hidden="vocab_transform",
    norm="vocab_layer_norm",
    decoder="vocab_projector",
    bias="vocab_projector.bias",
    other_heads=("classifier.", "pre_classifier.", "qa_outputs."),
)


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with DistilBERT's defaults for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    named = {berts: theirs[key] for berts, key in _KEYS.items() if key in theirs}
    kept = {key: value for key, value in theirs.items() if key not in _LACKING}
    try:
        config = bert.read_config({"num_hidden_layers": 6} | kept | named)
    except BertjaxError as error:  # which has the names of BERT
        message = str(error)
        for berts, key in _KEYS.items():
            message = message.replace(f"{berts}=", f"{key}=")
        raise BertjaxError(message) from None
    return dataclasses.replace(config, token_types=0, pooler_act="relu")


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    written = bert.write_config(config, heads)
    named = {_KEYS.get(key, key): value for key, value in written.items() if key not in _LACKING}
    architecture = "DistilBertForMaskedLM" if "mlm" in heads else "DistilBertModel"
    return named | {"architectures": [architecture], "sinusoidal_pos_embds": False}


DISTILBERT = Family(
    name="DistilBERT",
    model_type="distilbert",
    architecture="DistilBert",
    carried=bert.CARRIED
    | {
        "token_types": Carried((0,), "it has no segments"),
        "layer_norm_eps": Carried((1e-12,), "its norms have no other"),
    },
    read_config=read_config,
    write_config=write_config,
    names=_LAYOUT.names,
    text_head=text_head("pre_classifier", "classifier", "relu"),
    token_head=TOKEN_HEAD,
    answer_head=ANSWER_HEAD,
    after_reading=_LAYOUT.after_reading,
    before_writing=_LAYOUT.before_writing,
)
