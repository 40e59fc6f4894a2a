"""BERT in Hugging Face's format: its settings and the names of its weights, both ways.

A linear layer's weight is [out, in] there and [in, out] here. Label 0 of their next-sentence head means that the
sentence does follow, which is label 1 here.
"""

from collections.abc import Set
from typing import Any

import numpy as np

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub.family import Carried, Family, read_settings, transpose_kernels
from bertjax.hub.tensors import Tensors

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
    "biases": Carried((True,), "its linear layers and norms have biases"),
    "hidden_act": Carried(tuple(ACTIVATIONS), "its feed-forward layers have no gate"),
}

_DECODER = "cls.predictions.decoder"
_HEAD_BIAS = "cls.predictions.bias"  # tied it is the decoder's own bias too; untied, nothing adds it
_EMBEDDINGS = {
    "token_embedding": "word_embeddings",
    "segment_embedding": "token_type_embeddings",
    "position_embedding": "position_embeddings",
}
_LINEARS = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/out": "attention.output.dense",
    "ffn/in": "intermediate.dense",
    "ffn/out": "output.dense",
}
_PARTS = ("embeddings.", "encoder.", "pooler.")  # of a BERT, under these names where it was saved without heads
_TASK_HEADS = ("classifier.", "qa_outputs.")  # of the tasks that `transformers` has for BERT
_CONSTANTS = ("embeddings.position_ids", "embeddings.token_type_ids")  # that it once saved
_NORMS = {"attention_norm": "attention.output.LayerNorm", "ffn_norm": "output.LayerNorm"}


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


def write_config(config: BertConfig, heads: Set[str]) -> dict[str, Any]:
    """Returns what config.json says of the model with these heads."""
    return {
        "architectures": [_ARCHITECTURES[frozenset(heads & {"mlm", "nsp"})]],
        **{theirs: getattr(config, ours) for ours, theirs in SETTINGS.items()},
        "attention_probs_dropout_prob": config.dropout,
        "hidden_act": ACTIVATIONS[config.hidden_act],
        "type_vocab_size": 2,
        "initializer_range": config.init_scale,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def names(config: BertConfig, base: str = "bert") -> dict[str, str]:
    """Returns for the path of every parameter here its name there, but for an NSP head that compares both sentences.

    Args:
      base: what names of the encoder's weights begin with.
    """
    table = {ours: f"{base}.embeddings.{theirs}.weight" for ours, theirs in _EMBEDDINGS.items()}

    def add(ours: str, theirs: str, leaf: str) -> None:
        table[f"{ours}/{leaf}"], table[f"{ours}/bias"] = f"{theirs}.weight", f"{theirs}.bias"

    add("embedding_norm", f"{base}.embeddings.LayerNorm", "scale")
    for number in range(config.num_layers):
        for ours, theirs in _LINEARS.items():
            add(f"block_{number}/{ours}", f"{base}.encoder.layer.{number}.{theirs}", "kernel")
        for ours, theirs in _NORMS.items():
            add(f"block_{number}/{ours}", f"{base}.encoder.layer.{number}.{theirs}", "scale")
    if config.nsp_features == "cls":
        add("pooler", f"{base}.pooler.dense", "kernel")
        add("nsp", "cls.seq_relationship", "kernel")
    add("mlm/hidden", "cls.predictions.transform.dense", "kernel")
    add("mlm/norm", "cls.predictions.transform.LayerNorm", "scale")
    if config.tie_word_embeddings:
        table["mlm/bias"] = _HEAD_BIAS
    else:
        add("mlm/vocab", _DECODER, "kernel")
    return table


def to_ours(config: BertConfig, path: str, array: np.ndarray) -> np.ndarray:
    """Returns the parameter at one of our paths, made of their tensor."""
    array = transpose_kernels(config, path, array)
    return array[..., ::-1] if path.startswith("nsp/") else array


def to_theirs(config: BertConfig, path: str, array: np.ndarray) -> np.ndarray:
    """Returns their tensor, made of the parameter at one of our paths."""
    return transpose_kernels(config, path, array[..., ::-1] if path.startswith("nsp/") else array)


def after_reading(config: BertConfig, tensors: Tensors, base: str = "bert") -> Tensors:
    """Returns a folder's tensors under today's names, the decoder settled, heads of tasks left out.

    A tied decoder may be in the file once more; of the two biases there, an untied one adds the decoder's own.

    Args:
      base: what names of the encoder's weights begin with.

    Raises:
      BertjaxError: a decoder that config.json has as tied is not.
    """
    not_read = (*_TASK_HEADS, *(f"{base}.{name}" for name in _CONSTANTS))
    tensors = {_modern(name, base): array for name, array in tensors.items()}
    tensors = {name: array for name, array in tensors.items() if not name.startswith(not_read)}
    if not config.tie_word_embeddings:
        if (bias := tensors.pop(_HEAD_BIAS, None)) is not None:
            tensors.setdefault(f"{_DECODER}.bias", bias)
        return tensors
    ties = {f"{_DECODER}.weight": f"{base}.embeddings.word_embeddings.weight", f"{_DECODER}.bias": _HEAD_BIAS}
    for copy, original in ties.items():
        if copy in tensors and not np.array_equal(tensors[copy], tensors.setdefault(original, tensors[copy]), True):
            raise BertjaxError(
                f"{copy} is not {original}, as its config.json has it; set tie_word_embeddings to false there"
            )
        tensors.pop(copy, None)
    return tensors


def before_writing(config: BertConfig, tensors: Tensors) -> Tensors:
    """Returns the tensors with the bias that nothing adds: it would be missing to `transformers`."""
    if config.tie_word_embeddings or f"{_DECODER}.bias" not in tensors:
        return tensors
    return tensors | {_HEAD_BIAS: tensors[f"{_DECODER}.bias"].copy()}


def _modern(name: str, base: str) -> str:
    """Returns today's name: old folders have TensorFlow's names for norms, those without heads no `bert.`."""
    if name.endswith(("LayerNorm.gamma", "LayerNorm.beta")):
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return f"{base}.{name}" if name.startswith(_PARTS) else name


BERT = Family(
    name="BERT",
    model_type="bert",
    architecture="Bert",
    carried=CARRIED,
    read_config=read_config,
    write_config=write_config,
    names=names,
    head_names={"classifier/kernel": "classifier.weight", "classifier/bias": "classifier.bias"},
    to_ours=to_ours,
    to_theirs=to_theirs,
    after_reading=after_reading,
    before_writing=before_writing,
)
