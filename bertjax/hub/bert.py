"""BERT in Hugging Face's format: its settings and the names of its weights, both ways.

A linear layer's weight is [out, in] there and [in, out] here. Label 0 of their next-sentence head means that the
sentence does follow, which is label 1 here.
"""

import dataclasses
from collections.abc import Set
from typing import Any

import numpy as np

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub.family import Carried, Family, read_settings, transpose_kernels
from bertjax.hub.layout import ANSWER_HEAD, TOKEN_HEAD, Layout, text_head

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "silu": "silu"}
# The same functions under their other names there, equal but for rounding.
_THEIR_ACTIVATIONS = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "swish": "silu",
}
SETTINGS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position": "max_position_embeddings",
    "dropout": "hidden_dropout_prob",
    "layer_norm_eps": "layer_norm_eps",
}
_FIXED = {  # the only value of each that we compute, which is also what it is where it is not given
    "type_vocab_size": 2,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
_ARCHITECTURES = {
    frozenset({"mlm", "nsp"}): "BertForPreTraining",
    frozenset({"mlm"}): "BertForMaskedLM",
    frozenset({"nsp"}): "BertForNextSentencePrediction",
    frozenset(): "BertModel",
}
CARRIED = {
    "norm": Carried(("post",), "its norms stand after each sublayer"),
    "norm_kind": Carried(("layer",), "its norms are layer norms"),
    "embedding_norm": Carried((True,), "its embeddings are always normalised"),
    "positions": Carried(("learned",), "it has an embedding of each position"),
    "relative_attention_bias": Carried((False,), "its attention has no bias of distances"),
    "share_layers": Carried((False,), "its layers have parameters of their own"),
    "embedding_size": Carried((None,), "its embeddings are as wide as its layers"),
    "token_types": Carried((2,), "it has an embedding of each segment"),
    "biases": Carried((True,), "its linear layers and norms have biases"),
    "block_biases": Carried((True,), "its layers' linear layers have biases"),
    "window": Carried((0,), "its layers see whole texts"),
    "hidden_act": Carried(tuple(ACTIVATIONS), "its feed-forward layers have no gate"),
}

OF_ANY_WIDTH = {key: carried for key, carried in CARRIED.items() if key != "embedding_size"}

LAYOUT = Layout()
_TEXT_HEAD = text_head(None, "classifier", "tanh")


def read_config(theirs: dict[str, Any]) -> BertConfig:
    """Returns the settings that a config.json gives, with BERT-base's defaults for those that it leaves out.

    Raises:
      BertjaxError: it has a setting that we cannot compute, or a size that is not a number.
    """
    for key, value in _FIXED.items():
        if theirs.get(key, value) != value:
            raise BertjaxError(f"{key}={theirs[key]!r} is not supported; only {value!r} is")
    activation = theirs.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in _THEIR_ACTIVATIONS:
        raise BertjaxError(f"hidden_act={activation!r} is not supported; only {', '.join(_THEIR_ACTIVATIONS)} are")
    settings = {"vocab_size": 30522} | read_settings(theirs, SETTINGS)
    settings["hidden_act"] = _THEIR_ACTIVATIONS[activation]
    return BertConfig(**settings, tie_word_embeddings=bool(theirs.get("tie_word_embeddings", True)))


def with_embedding_size(config: BertConfig, size: Any) -> BertConfig:
    """Returns the settings with the size of embeddings that a config.json gives. Raises BertjaxError if it is none."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise BertjaxError(f"embedding_size={size!r} is not a number; fetch it again")
    return dataclasses.replace(config, embedding_size=None if size == config.hidden_size else size)


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    return {
        "architectures": [_ARCHITECTURES[frozenset(heads & {"mlm", "nsp"})]],
        **{theirs: getattr(config, ours) for ours, theirs in SETTINGS.items()},
        "attention_probs_dropout_prob": config.dropout,
        "hidden_act": ACTIVATIONS[config.hidden_act],
        "type_vocab_size": config.token_types,
        "initializer_range": config.init_scale,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def to_ours(config: BertConfig, path: str, array: np.ndarray) -> np.ndarray:
    """Returns the parameter at one of our paths, made of their tensor."""
    array = transpose_kernels(config, path, array)
    return array[..., ::-1] if path.startswith("nsp/") else array


def to_theirs(config: BertConfig, path: str, array: np.ndarray) -> np.ndarray:
    """Returns their tensor, made of the parameter at one of our paths."""
    return transpose_kernels(config, path, array[..., ::-1] if path.startswith("nsp/") else array)


BERT = Family(
    name="BERT",
    model_type="bert",
    architecture="Bert",
    carried=CARRIED | dict(_TEXT_HEAD.carried),  # whose pooler the NSP head shares
    read_config=read_config,
    write_config=write_config,
    names=LAYOUT.names,
    text_head=_TEXT_HEAD,
    token_head=TOKEN_HEAD,
    answer_head=ANSWER_HEAD,
    to_ours=to_ours,
    to_theirs=to_theirs,
    after_reading=LAYOUT.after_reading,
    before_writing=LAYOUT.before_writing,
)
