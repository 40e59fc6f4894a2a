"""Hugging Face folders, read and written: what all families share.

Nothing but JSON, text and safetensors is looked at.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import BertConfig
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.settings import ROLES_FILE, read_json
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError, warn
from bertjax.hub.albert import ALBERT
from bertjax.hub.bert import BERT
from bertjax.hub.deberta_v2 import DEBERTA_V2
from bertjax.hub.distilbert import DISTILBERT
from bertjax.hub.electra import ELECTRA
from bertjax.hub.family import HEADS, Family, carrying_family, label_head
from bertjax.hub.jina_embeddings_v3 import JINA_EMBEDDINGS_V3
from bertjax.hub.modernbert import MODERNBERT
from bertjax.hub.mpnet import MPNET
from bertjax.hub.nomic_bert import NOMIC_BERT
from bertjax.hub.onnx import Weights, check_installed, write_onnx
from bertjax.hub.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from bertjax.hub.roformer import ROFORMER
from bertjax.hub.sentence_transformers import SentenceSettings, settings_files
from bertjax.hub.task_head import TaskHead, write_settings
from bertjax.hub.task_head import read_settings as read_task_settings
from bertjax.hub.tensors import WHOLE, Tensors, as_float32, read_tensors
from bertjax.models.bert import Bert
from bertjax.models.parameters import params_template
from bertjax.storage.atomic import atomic_folder

FAMILIES: tuple[Family, ...] = (
    *(BERT, ROFORMER, MODERNBERT, DISTILBERT, ELECTRA, ALBERT),
    *(ROBERTA, XLM_ROBERTA, CAMEMBERT, MPNET, NOMIC_BERT, JINA_EMBEDDINGS_V3, DEBERTA_V2),
)
_MEAN = SentenceSettings()
_logger = logging.getLogger(__name__)
_EXAMPLES = 5  # weights that a warning names


class HubModel(NamedTuple):
    """A model from elsewhere."""

    config: BertConfig
    params: dict[str, Any]  # nested, numpy float32; without heads where the folder has none
    tokenizer: Tokenizer


class HubTaskModel(NamedTuple):
    """A fine-tuned model from elsewhere."""

    model: HubModel  # whose parameters have the head's
    head: TaskHead
    max_length: int  # tokens that are read of a text


def is_hub_folder(folder: Path) -> bool:
    """Returns whether the folder has a config.json, and is not a run's."""
    return (folder / "config.json").is_file() and not (folder / "config.yaml").exists()


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields path ("mlm/hidden/kernel") and value of every leaf of nested dictionaries, in their order."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


# Reading.


def read_model_config(folder: Path, families: Sequence[Family] = FAMILIES) -> BertConfig:
    """Returns the settings of a folder's model.

    Raises:
      BertjaxError: it is of another architecture, or one that we cannot compute.
    """
    return _read_config(folder, families)[1]


def read_family(folder: Path, families: Sequence[Family] = FAMILIES) -> Family:
    """Returns the family of a folder's model. Raises BertjaxError as `read_model_config` does."""
    return _read_config(folder, families)[0]


def families_for(own: str | None, asked: str | None = None) -> tuple[Family, ...]:
    """Returns the families as which a model may be written, by their `model_type`: all of them, its own first.

    Args:
      own: that of the folder that it began with, if any.
      asked: the only one as which it may be written.
    """
    if asked is not None:
        return tuple(family for family in FAMILIES if family.model_type == asked)
    return tuple(sorted(FAMILIES, key=lambda family: family.model_type != own))


def read_folder(folder: Path, families: Sequence[Family] = FAMILIES) -> HubModel:
    """Returns the model of a folder, its weights in float32.

    Args:
      families: those that it may be of; its config.json tells by `model_type`.

    Raises:
      BertjaxError: it is of another architecture, its weights are pickled, missing, of the wrong shape or not finite,
        or its tokenizer is of another kind.
    """
    family, config = _read_config(folder, families)
    return _to_model(folder, family, config, read_tensors(folder))


def read_task_folder(folder: Path, families: Sequence[Family] = FAMILIES) -> HubTaskModel:
    """Returns the fine-tuned model of a folder.

    Args:
      families: as of `read_folder`.

    Raises:
      BertjaxError: as `read_folder` does; or it has no head for labels, numbers or answers.
    """
    head = read_task_head(folder)
    family, config = _read_config(folder, families)
    if (place := label_head(family, head.of)) is None:
        raise BertjaxError(f"{folder}: the head of {family.name} for {head.of} is not supported")
    tensors = read_tensors(folder)
    model = _to_model(folder, family, config, tensors)
    table = {path: name for path, name in place.names.items() if _part(path) == "classifier"}
    if not set(table.values()) <= tensors.keys() or (head.of == "labels of texts" and "pooler" not in model.params):
        raise BertjaxError(f"{folder} has no whole head for its {head.architecture}; fetch its files again")
    size = (config.hidden_size, head.targets.num_outputs)
    shapes = {"classifier/kernel": size, "classifier/bias": size[1:]}
    params = model.params | _to_params(folder, family, config, tensors, table, shapes)
    longest = read_json(folder / "tokenizer_config.json").get("model_max_length")
    max_length = min(longest, config.max_position) if isinstance(longest, int) else config.max_position
    return HubTaskModel(model._replace(params=params), head, max_length)


def read_task_head(folder: Path) -> TaskHead:
    """Returns what a folder's model tells, without its weights. Raises BertjaxError where it has no such head."""
    path = folder / "config.json"
    try:
        return read_task_settings(read_json(path))
    except BertjaxError as error:
        raise BertjaxError(f"{path}: {error}") from None


def _to_model(folder: Path, family: Family, config: BertConfig, stored: Tensors) -> HubModel:
    try:
        tensors = family.after_reading(config, stored)
    except BertjaxError as error:
        raise BertjaxError(f"{folder}: {error}") from None
    table = family.names(config)
    lacking = set(HEADS) - {_part(path) for path, name in table.items() if name in tensors}
    there = {path: name for path, name in table.items() if _part(path) not in lacking}
    shapes = {path: leaf.shape for path, leaf in leaves(params_template(Bert(config)))}
    params = _to_params(folder, family, config, tensors, there, shapes)
    # A head for labels of texts may have a pooler, from which a run that learns other labels starts.
    of_head = {} if family.text_head is None else family.text_head.names
    of_pooler = {path: name for path, name in of_head.items() if _part(path) == "pooler"}
    if set(of_pooler.values()) <= stored.keys():
        params |= _to_params(folder, family, config, stored, of_pooler, shapes)
    if left := sorted(tensors.keys() - set(table.values())):
        some = ", ".join(left[:_EXAMPLES]) + (f" and {len(left) - _EXAMPLES:,} more" if len(left) > _EXAMPLES else "")
        warn(f"{folder} has weights that its config.json gives no place, left out: {some}", stacklevel=3)
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > (config.vocab_size or 0):
        last = tokenizer.tokens([tokenizer.vocab_size - 1])[0]
        raise BertjaxError(
            f"{folder} has {tokenizer.vocab_size} tokens, up to {last!r}, and weights for "
            f"vocab_size={config.vocab_size}; fetch its files again"
        )
    return HubModel(config, params, tokenizer)


def _read_config(folder: Path, families: Sequence[Family]) -> tuple[Family, BertConfig]:
    path = folder / "config.json"
    theirs = read_json(path)
    model_type = theirs.get("model_type")
    for family in families:
        if family.model_type == model_type:
            try:
                return family, family.read_config(theirs)
            except BertjaxError as error:
                raise BertjaxError(f"{path}: {error}") from None
    known = ", ".join(f"{family.name} ({family.model_type!r})" for family in families)
    if model_type is None:
        raise BertjaxError(f"{path} names no model_type; only {known} can be read, so give it that where it is one")
    raise BertjaxError(f"{folder} is a {model_type!r} model; only {known} can be read")


def _to_params(
    folder: Path,
    family: Family,
    config: BertConfig,
    tensors: Tensors,
    table: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Any]:
    """Returns the parameters of a table of names, nested, each of the shape that its path is to have."""
    params: dict[str, Any] = {}
    for name, paths in _paths_by_name(table).items():
        if name not in tensors:
            raise BertjaxError(f"{folder} has no weight {name}; give a folder with a whole {family.name}")
        wrong = BertjaxError(f"{folder}: {name} is {list(tensors[name].shape)}, not what its config.json says")
        if not tensors[name].ndim:
            raise wrong
        for path, part in zip(paths, np.array_split(tensors[name], len(paths)), strict=True):
            array = as_float32(folder, name, family.to_ours(config, path, part))
            if array.shape != shapes[path]:
                raise wrong
            node = params
            *parents, leaf = path.split("/")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = array
    return params


def _part(path: str) -> str:
    return path.partition("/")[0]


def _paths_by_name(table: Mapping[str, str]) -> dict[str, list[str]]:
    paths: dict[str, list[str]] = {}
    for path, name in table.items():
        paths.setdefault(name, []).append(path)
    return paths


# Writing.


def check_writable(
    config: BertConfig,
    folder: Path,
    *,
    tokenizer: Tokenizer | None = None,
    families: Sequence[Family] = FAMILIES,
    head: TaskHead | None = None,
    onnx: Weights | None = None,
) -> Family:
    """Checks that the model can be written, as far as that can be known before its weights are read.

    Args:
      tokenizer: the model's, where it is known already.
      families: those as which it may be written.
      head: what a fine-tuned model tells.
      onnx: as of `write_folder`.

    Returns:
      The family as which it is written: the first that carries it exactly.

    Raises:
      BertjaxError: the folder exists, no family's format can carry the model, that one's has another number for
        padding, or what writes ONNX is not installed.
    """
    if onnx is not None:
        check_installed()
    family = carrying_family(families, config, None if head is None else head.of)
    if tokenizer is not None and family.pad not in (None, pad := tokenizer.vocabulary.pad):
        raise BertjaxError(
            f"{family.name}'s format has padding as token {family.pad}, and this tokenizer as {pad}; train with a "
            f"tokenizer of {family.name}'s, or export with --format stablehlo"
        )
    if folder.exists():
        raise BertjaxError(f"{folder} exists and is left as it is; give another folder")
    return family


def write_folder(
    config: BertConfig,
    params: dict[str, Any],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    card: str,
    families: Sequence[Family] = FAMILIES,
    sentence: SentenceSettings = _MEAN,
    head: TaskHead | None = None,
    max_length: int | None = None,
    onnx: Weights | None = None,
) -> None:
    """Writes a folder that `transformers` and `sentence-transformers` load; it appears whole or not at all.

    Args:
      params: nested, as `Bert` has them; heads may be missing. With a `head` they have its part, classifier.
      card: the text of README.md.
      families: those as which it may be written: it is by the first that carries it exactly.
      sentence: how sentence-transformers is to make the vectors of texts.
      head: what a fine-tuned model tells; such a folder makes no vectors.
      max_length: tokens that are to be read of a text; by default all that have a position.
      onnx: writes the model as ONNX too, in onnx/, where optimum looks for it; by default it does not.

    Raises:
      BertjaxError: as of `check_writable`, or the folder cannot be written.
    """
    family = check_writable(config, folder, tokenizer=tokenizer, families=families, head=head, onnx=onnx)
    tensors = {WHOLE: _to_tensors(family, config, dict(leaves(params)), head)}
    heads = params.keys() & set(HEADS) & {_part(path) for path in family.names(config)}
    if left_out := params.keys() & {"mlm", "nsp"} - heads:
        parts = " and ".join(sorted(part.upper() for part in left_out))
        _logger.info(f"NOTICE:   {family.name}'s format has no place for the {parts} head, which is left out")
    contents = _json_files(family, config, tokenizer, heads, max_length or config.max_position)
    if head is not None:
        named = {"architectures": [f"{family.architecture}{head.architecture}"]}
        contents["config.json"] |= named | write_settings(head)
    else:
        for name, content in settings_files(sentence, config.hidden_size, config.max_position).items():
            (tensors if name.endswith(WHOLE) else contents)[name] = content
    from safetensors.numpy import save_file

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as built:
            (built / "tokenizer.json").write_text(tokenizer.to_hub_json(), encoding="utf-8")
            if tokenizer.rules.kind == "wordpiece":  # other tools would take words for pieces
                (built / "vocab.txt").write_text(tokenizer.to_vocab_txt(), encoding="utf-8", newline="\n")
            (built / "README.md").write_text(card, encoding="utf-8")
            for name, content in contents.items():
                (built / name).parent.mkdir(exist_ok=True)
                (built / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            for name, arrays in tensors.items():
                save_file(arrays, built / name, metadata={"format": "pt"})
                shutil.copymode(built / "config.json", built / name)  # which the library makes private
            if onnx is not None:
                (built / "onnx").mkdir()
                of = None if head is None else head.of
                write_onnx(config, dict(leaves(params)), built / "onnx", weights=onnx, pad=family.pad, head=of)
    except OSError as error:
        raise BertjaxError(f"cannot write {folder}: {error.strerror}; give another place") from error


def _to_tensors(family: Family, config: BertConfig, params: dict[str, Any], head: TaskHead | None) -> Tensors:
    """Returns parameters, by path, as the family's tensors."""

    def tensor(paths: list[str]) -> np.ndarray:
        parts = [family.to_theirs(config, path, np.asarray(params[path])) for path in paths]
        return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts), np.float32)

    lacking = set(HEADS) - {_part(path) for path in params}
    table = {path: name for path, name in family.names(config).items() if _part(path) not in lacking}
    if head is not None and (place := label_head(family, head.of)) is not None:
        table |= {path: name for path, name in place.names.items() if path in params}
    return family.before_writing(config, {name: tensor(paths) for name, paths in _paths_by_name(table).items()})


def _json_files(
    family: Family, config: BertConfig, tokenizer: Tokenizer, heads: set[str], max_length: int
) -> dict[str, Any]:
    return {
        "config.json": {
            "model_type": family.model_type,
            **family.write_config(config, heads),
            "pad_token_id": tokenizer.vocabulary.pad,
            "torch_dtype": "float32",
        },
        "tokenizer_config.json": {
            **tokenizer.hub_settings(),
            **({} if family.tokenizer_class is None else {"tokenizer_class": family.tokenizer_class}),
            "model_max_length": max_length,
            "model_input_names": ["input_ids", *(["token_type_ids"] * (config.token_types > 1)), "attention_mask"],
        },
        ROLES_FILE: tokenizer.roles,
    }
