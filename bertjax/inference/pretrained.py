"""A trained BERT, whichever kind of folder it is in: a run's, or a Hugging Face one."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from bertjax.config import BertConfig
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.folder import is_hub_folder, read_folder, read_model_config
from bertjax.models.bert import Bert
from bertjax.parallel.sharding import make_mesh, place_params
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params


class Pretrained(NamedTuple):
    """A trained model and its vocabulary."""

    config: BertConfig
    params: dict[str, Any]  # nested, float32, on the mesh; without the heads that a Hugging Face folder lacks
    tokenizer: Tokenizer


def load(folder: str | Path, mesh: Mesh | None = None) -> Pretrained:
    """The newest sound checkpoint of a run, or the BERT of a Hugging Face folder (safetensors only).

    Args:
      mesh: where the parameters are to lie, each device having its share; by default on one device.

    Raises:
      BertjaxError: the folder has no checkpoint, or no BERT that can be read.
    """
    folder, mesh = Path(folder), mesh or make_mesh(devices=jax.devices()[:1])
    if not is_hub_folder(folder):
        run = _run(folder)
        config = run.config().model
        return Pretrained(config, load_params(run, Bert(config), mesh), run.tokenizer())
    read = read_folder(folder)
    return Pretrained(read.config, place_params(read.params, mesh), read.tokenizer)


def model_config(folder: str | Path) -> BertConfig:
    """The settings of a folder's model. Raises BertjaxError where there are none that can be read."""
    folder = Path(folder)
    return read_model_config(folder) if is_hub_folder(folder) else _run(folder).config().model


def _run(folder: Path) -> RunFolder:
    run = RunFolder(folder)
    if not run.begun:
        kinds = "is not a run's folder nor a Hugging Face one: it has neither config.yaml nor config.json"
        raise BertjaxError(f"{folder} {kinds}; give one that has")
    return run
