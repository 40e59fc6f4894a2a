"""A trained model from either kind of folder: a run's, or a Hugging Face one."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config import BertConfig
from bertjax.config.checks import as_type
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.family import HEADS
from bertjax.hub.folder import is_hub_folder, leaves, read_family, read_folder, read_model_config
from bertjax.models.bert import Bert, params_template
from bertjax.parallel.sharding import local_devices, make_mesh, place_params
from bertjax.storage.hub_models import model_folder

if TYPE_CHECKING:
    from bertjax.runs.folder import RunFolder


class Pretrained(NamedTuple):
    """A trained model and its vocabulary."""

    config: BertConfig
    params: dict[str, Any]  # nested, float32, on the mesh; without the heads that a Hugging Face folder lacks
    tokenizer: Tokenizer


def load(folder: str | Path, mesh: Mesh | None = None) -> Pretrained:
    """Reads the newest sound checkpoint of a run, or the BERT of a Hugging Face folder (safetensors only).

    Args:
      folder: a run's or a Hugging Face one, or ORG/NAME or ORG/NAME@REVISION on the hub.
      mesh: the devices that share the parameters; by default one device of this process has them all.

    Raises:
      BertjaxError: the folder has no checkpoint, or no BERT that can be read.
    """
    path, mesh = model_folder(as_type(folder, Path, "folder")), mesh or make_mesh(devices=local_devices()[:1])
    if _is_hub_folder(path):
        read = read_folder(path)
        return Pretrained(read.config, place_params(read.params, mesh), read.tokenizer)
    from bertjax.runs.parameters import load_params

    run = run_at(path)
    config = run.config()
    return Pretrained(config.model, load_params(run, config, mesh), run.tokenizer())


def model_config(folder: str | Path) -> BertConfig:
    """Reads the settings of a folder's model, its family too. Raises BertjaxError where none can be read."""
    path = model_folder(as_type(folder, Path, "folder"))
    if not _is_hub_folder(path):
        return run_at(path).config().model
    family: Any = read_family(path).model_type
    return dataclasses.replace(read_model_config(path), family=family)


def check_fit(config: BertConfig, params: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Raises BertjaxError where parameters or vocabulary are not those of the model that the settings tell."""
    if config.vocab_size is None or tokenizer.vocab_size > config.vocab_size:
        raise BertjaxError(
            f"tokenizer has {tokenizer.vocab_size} tokens, and config.vocab_size={config.vocab_size}; give that many"
        )
    there = {path: leaf.shape for path, leaf in leaves(params) if isinstance(leaf, np.ndarray | jax.Array)}
    for path, wanted in leaves(params_template(Bert(config))):
        if there.get(path) != wanted.shape and (path in there or path.partition("/")[0] not in HEADS):
            given = f"of shape {list(there[path])}" if path in there else "not there"
            raise BertjaxError(
                f"params: {path} is {given}, and config wants {list(wanted.shape)}; give the parameters of this model"
            )


def _is_hub_folder(folder: Path) -> bool:
    try:
        return is_hub_folder(folder)
    except OSError as error:
        raise BertjaxError(
            f"{folder} cannot be read: {error.strerror}; give a run's folder or a Hugging Face one"
        ) from None


def run_at(folder: Path) -> "RunFolder":
    """Returns the run of a folder that is no Hugging Face one. Raises BertjaxError where it is neither."""
    # Imported only here: a Hugging Face folder needs nothing of a run's, and need not wait for what that imports.
    from bertjax.runs.folder import RunFolder

    run = RunFolder(folder)
    if not run.begun:
        kinds = "is not a run's folder nor a Hugging Face one: it has neither config.yaml nor config.json"
        raise BertjaxError(f"{folder} {kinds}; give one that has, or ORG/NAME on the hub")
    return run
