"""Tensors of a folder: safetensors, whole or in shards. Nothing else is looked at."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from bertjax.data.tokenizer.settings import read_json
from bertjax.errors import BertjaxError

Tensors = dict[str, np.ndarray]

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_tensors(folder: Path) -> Tensors:
    """Returns the tensors of a folder as they are stored.

    A whole file wins over an index of shards beside it, which an older save may have left there.

    Raises:
      BertjaxError: there are none, they are pickled, or a file is damaged.
    """
    index, files = folder / INDEX, [WHOLE]
    if os.path.isfile(index) and not os.path.isfile(folder / WHOLE):
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise BertjaxError(f"{index} does not tell where the weights are; fetch it again")
        files = sorted(set(map(str, places.values())))
    tensors: Tensors = {}
    for name in files:
        path = folder / name
        if Path(name).name != name or not os.path.isfile(path):
            pickled = next((file.name for file in sorted(folder.glob("*.bin"))), None)
            instead = f"; {pickled} is a pickle, which could run anything, and is not read" if pickled else ""
            raise BertjaxError(f"{folder} has no {name}{instead}: give a folder with safetensors")
        tensors |= _read_file(path)
    return tensors


def as_float32(folder: Path, name: str, array: np.ndarray) -> np.ndarray:
    """Returns a weight in float32, contiguous.

    Raises:
      BertjaxError: it holds integers, as quantised weights do, or a number that is not finite in float32.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise BertjaxError(
            f"{folder}: {name} is of type {array.dtype}, not floating-point; give a folder that is not quantised"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # said below
        array = np.ascontiguousarray(array, np.float32)
    # Both are NaN where any number is, and take no memory.
    if array.size and not np.isfinite([array.min(), array.max()]).all():
        raise BertjaxError(
            f"{folder}: {name} has {np.count_nonzero(~np.isfinite(array)):,} of {array.size:,} numbers that are NaN or "
            "infinite; its training failed or the file is damaged: give another"
        )
    return array


def _read_file(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise BertjaxError(f"{path} cannot be read: {' '.join(str(error).split())}; fetch it again") from None
