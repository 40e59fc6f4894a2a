"""Hugging Face folders, read: a BERT from elsewhere. Nothing but JSON, text and safetensors is looked at."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import BertConfig
from bertjax.data.tokenizer import BERTS_SPECIAL_TOKENS, Rules, Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub import ACTIVATIONS, ROLES, SIZES, leaves, names, to_ours
from bertjax.model import Bert, params_template

_THEIR_ACTIVATIONS = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"gelu_new": "gelu_tanh"}


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
    config = _config(folder)
    theirs = {_name(name): array for name, array in _tensors(folder).items()}
    params: dict[str, Any] = {}
    shapes = {path: leaf.shape for path, leaf in leaves(params_template(Bert(config)))}
    for ours, name in names(config).items():
        if name not in theirs:
            if ours.startswith(("pooler", "mlm", "nsp")):
                continue
            raise BertjaxError(f"{folder} has no weight {name}; give a folder with a whole BERT")
        array = to_ours(ours, theirs[name])
        if array.shape != shapes[ours]:
            raise BertjaxError(f"{folder}: {name} is {list(theirs[name].shape)}, not what its config.json says")
        node = params
        *parents, leaf = ours.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return Foreign(config, params, _tokenizer(folder, config))


def _name(name: str) -> str:
    """As it is written today: old folders have TensorFlow's names for norms, those without heads no `bert.`."""
    if name.endswith(("LayerNorm.gamma", "LayerNorm.beta")):
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name if name.startswith(("bert.", "cls.")) else f"bert.{name}"


def _json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if needed:
            raise BertjaxError(f"there is no {path}; give a folder that has it") from None
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BertjaxError(f"{path} cannot be read: {' '.join(str(error).split())}; fetch it again") from None
    if not isinstance(content, dict):
        raise BertjaxError(f"{path} holds no keys; fetch it again")
    return content


_ONLY = {
    "type_vocab_size": 2,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}


def _config(folder: Path) -> BertConfig:
    path = folder / "config.json"
    theirs = _json(path)
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
    return BertConfig(**settings, hidden_act=_THEIR_ACTIVATIONS[activation], tied_head=tied)  # type: ignore[arg-type]


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.is_file():
        places = _json(index).get("weight_map")
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


def _tokenizer(folder: Path, config: BertConfig) -> Tokenizer:
    settings = _json(folder / "tokenizer_config.json", needed=False)
    special = _special(settings | _json(folder / "special_tokens_map.json", needed=False))
    file = folder / "tokenizer.json"
    if file.is_file():
        vocabulary, rules = _of_json(file, _json(file), special)
    else:
        vocabulary, rules = _of_text(folder / "vocab.txt", settings, special)
    if missing := [token for token in special if token not in vocabulary]:
        raise BertjaxError(f"{folder}: the vocabulary lacks {' '.join(missing)}; fetch its tokenizer's files again")
    numbered = all(type(number) is int for number in vocabulary.values())
    if (
        not numbered
        or sorted(vocabulary.values()) != list(range(len(vocabulary)))
        or len(vocabulary) > (config.vocab_size or 0)
    ):
        raise BertjaxError(
            f"{folder}: {len(vocabulary)} tokens are not numbered 0 up to at most vocab_size={config.vocab_size}; "
            "fetch its tokenizer's files again"
        )
    return Tokenizer.of(vocabulary, rules)


def _special(settings: dict[str, Any]) -> tuple[str, ...]:
    """By their roles, whatever their names."""
    found = []
    for role, default in zip(ROLES, BERTS_SPECIAL_TOKENS, strict=True):
        token = settings.get(role, default)
        found.append(token["content"] if isinstance(token, dict) and "content" in token else token)
    return tuple(str(token) for token in found)


def _of_json(file: Path, tree: dict[str, Any], special: tuple[str, ...]) -> tuple[dict[str, int], Rules]:
    try:
        model, normalizer, splitter = tree["model"], tree["normalizer"] or {"type": None}, tree["pre_tokenizer"]
        kinds = (model["type"], normalizer["type"], splitter["type"])
        vocabulary = dict(model["vocab"]) | {token["content"]: token["id"] for token in tree["added_tokens"]}
    except (KeyError, TypeError, ValueError) as error:
        raise BertjaxError(f"{file} is not a tokenizer that can be read: {error!r}; fetch it again") from None
    if kinds == ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
        return vocabulary, _piece_rules(normalizer, "lowercase", "handle_chinese_chars", special)
    if kinds in (("WordLevel", "Lowercase", "WhitespaceSplit"), ("WordLevel", None, "WhitespaceSplit")):
        return vocabulary, Rules("word", normalizer["type"] == "Lowercase", special=special)
    raise BertjaxError(f"{file} is a tokenizer of another kind ({', '.join(map(str, kinds))}); only BERT's can be read")


def _of_text(file: Path, settings: dict[str, Any], special: tuple[str, ...]) -> tuple[dict[str, int], Rules]:
    try:
        tokens = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BertjaxError(f"{file} cannot be read: {error}; give a folder with tokenizer.json or vocab.txt") from None
    vocabulary = {
        token.rstrip("\r"): number for number, token in enumerate(tokens[:-1] if tokens[-1] == "" else tokens)
    }
    return vocabulary, _piece_rules(settings, "do_lower_case", "tokenize_chinese_chars", special)


def _piece_rules(flags: dict[str, Any], lowercase: str, chinese: str, special: tuple[str, ...]) -> Rules:
    lower = bool(flags.get(lowercase, True))
    accents = flags.get("strip_accents")
    return Rules(
        "wordpiece", lower, lower if accents is None else bool(accents), bool(flags.get(chinese, True)), special
    )
