"""Hugging Face folders, read: a BERT from elsewhere. Nothing but JSON, text and safetensors is looked at."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import BertConfig
from bertjax.data.tokenizer.files import load_tokenizer, read_json
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.bert import ACTIVATIONS, DEAD_BIAS, HEADS, SIZES, leaves, names, to_ours
from bertjax.models.bert import Bert, params_template

# The same functions under their other names there, equal but for rounding.
_THEIR_ACTIVATIONS = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "swish": "silu",
}


class Foreign(NamedTuple):
    """A BERT from elsewhere."""

    config: BertConfig
    params: dict[str, Any]  # nested, numpy float32; without heads where the folder has none
    tokenizer: Tokenizer


def is_hub_folder(folder: Path) -> bool:
    """Whether it has a config.json, and is not a run's."""
    return (folder / "config.json").is_file() and not (folder / "config.yaml").exists()


def read(folder: Path) -> Foreign:
    """The BERT of a folder, its weights in float32.

    Raises:
      BertjaxError: it is another architecture, its weights are pickled, missing or of the wrong shape, or its
        tokenizer is of another kind.
    """
    config = read_config(folder)
    theirs = {_name(name): array for name, array in _tensors(folder).items()}
    _settle_decoder(folder, config, theirs)
    table = names(config)
    there = {_part(ours) for ours, name in table.items() if name in theirs}
    params: dict[str, Any] = {}
    shapes = {path: leaf.shape for path, leaf in leaves(params_template(Bert(config)))}
    for ours, name in table.items():
        if _part(ours) in HEADS and _part(ours) not in there:
            continue
        if name not in theirs:
            raise BertjaxError(f"{folder} has no weight {name}; give a folder with a whole BERT")
        array = to_ours(ours, theirs[name])
        if array.shape != shapes[ours]:
            raise BertjaxError(f"{folder}: {name} is {list(theirs[name].shape)}, not what its config.json says")
        node = params
        *parents, leaf = ours.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > (config.vocab_size or 0):
        raise BertjaxError(
            f"{folder} has {tokenizer.vocab_size} tokens and weights for vocab_size={config.vocab_size}; fetch its "
            "tokenizer's files again"
        )
    return Foreign(config, params, tokenizer)


def _part(path: str) -> str:
    return path.partition("/")[0]


def _settle_decoder(folder: Path, config: BertConfig, theirs: dict[str, np.ndarray]) -> None:
    """A tied decoder may be in the file once more; of the two biases there, an untied one adds the decoder's own."""
    decoder = "cls.predictions.decoder"
    if not config.tie_word_embeddings:
        if DEAD_BIAS in theirs:
            theirs.setdefault(f"{decoder}.bias", theirs[DEAD_BIAS])
        return
    ties = {f"{decoder}.weight": "bert.embeddings.word_embeddings.weight", f"{decoder}.bias": DEAD_BIAS}
    for copy, original in ties.items():
        if copy in theirs and not np.array_equal(theirs[copy], theirs.setdefault(original, theirs[copy])):
            raise BertjaxError(
                f"{folder}: {copy} is not {original}, as its config.json has it; set tie_word_embeddings to false there"
            )


def _name(name: str) -> str:
    """As it is written today: old folders have TensorFlow's names for norms, those without heads no `bert.`."""
    if name.endswith(("LayerNorm.gamma", "LayerNorm.beta")):
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name if name.startswith(("bert.", "cls.")) else f"bert.{name}"


_ONLY = {
    "type_vocab_size": 2,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}


def read_config(folder: Path) -> BertConfig:
    """The settings of its model. Raises BertjaxError where it is another architecture, or none that we can compute."""
    path = folder / "config.json"
    theirs = read_json(path)
    if theirs.get("model_type") != "bert":
        raise BertjaxError(f"{folder} is a {theirs.get('model_type')!r} model; only BERT ('bert') can be read")
    for key, value in _ONLY.items():
        if theirs.get(key, value) != value:
            raise BertjaxError(f"{path}: {key}={theirs[key]!r} is not supported; only {value!r} is")
    activation = theirs.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in _THEIR_ACTIVATIONS:
        known = ", ".join(_THEIR_ACTIVATIONS)
        raise BertjaxError(f"{path}: hidden_act={activation!r} is not supported; only {known} are")
    sizes = {ours: theirs[name] for ours, name in SIZES.items() if name in theirs}
    for name, value in sizes.items():
        expected = (int, float) if name in ("dropout", "layer_norm_eps") else int
        if isinstance(value, bool) or not isinstance(value, expected):
            raise BertjaxError(f"{path}: {SIZES[name]}={value!r} is not a number; fetch it again")
    settings = {"vocab_size": 30522} | sizes
    tied = bool(theirs.get("tie_word_embeddings", True))
    return BertConfig(**settings, hidden_act=_THEIR_ACTIVATIONS[activation], tie_word_embeddings=tied)  # type: ignore[arg-type]


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.is_file():
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise BertjaxError(f"{index} does not tell where the weights are; fetch it again")
        files = sorted(set(map(str, places.values())))
    tensors: dict[str, np.ndarray] = {}
    for name in files:
        path = folder / name
        if Path(name).name != name or not os.path.isfile(path):
            pickled = next((file.name for file in sorted(folder.glob("*.bin"))), None)
            instead = f"; {pickled} is a pickle, which could run anything, and is not read" if pickled else ""
            raise BertjaxError(f"{folder} has no {name}{instead}: give a folder with safetensors")
        tensors |= _safetensors(path)
    return tensors


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise BertjaxError(f"{path} cannot be read: {' '.join(str(error).split())}; fetch it again") from None
