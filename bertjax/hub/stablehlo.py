"""An encoder as one StableHLO file: weights and program together, which JAX alone runs, on CPUs and NVIDIA GPUs."""

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from bertjax.config import BertConfig
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.family import HEADS
from bertjax.models.bert import Bert
from bertjax.storage.atomic import atomic_write

PLATFORMS = ("cpu", "cuda")


def vocabulary_beside(file: Path) -> Path:
    """Returns the path of the tokenizer.json that goes with an exported file."""
    return file.with_name(f"{file.stem}.tokenizer.json")


def export(config: BertConfig, params: dict[str, Any], tokenizer: Tokenizer, file: Path) -> None:
    """Writes an encoder, and its vocabulary beside it, whole or not at all.

    Read again, `jax.export.deserialize(...).call` is a function of tokens, segments and mask (1, or 0 for padding),
    int32 [b, t] for any b and any t up to the model's positions, that returns representations, float32 [b, t, d],
    which are 0 at padding.

    Args:
      params: nested, as `Bert` has them; heads are left out.
      file: where the program goes; the vocabulary goes to `vocabulary_beside(file)`.

    Raises:
      BertjaxError: a file is there already or cannot be written, or flatbuffers is not installed.
    """
    _check_free(file)  # which a folder is not, nor has every one a name to put something beside
    vocabulary = vocabulary_beside(file)
    _check_free(vocabulary)
    if importlib.util.find_spec("flatbuffers") is None:
        raise BertjaxError("to write StableHLO flatbuffers is needed: pip install 'bertjax[stablehlo]'")
    encoder = {name: part for name, part in params.items() if name not in HEADS}
    program = _program(Bert(config), encoder)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            with atomic_write(file, binary=True, replace=False) as out:
                out.write(program)
                with atomic_write(vocabulary, replace=False) as text:
                    text.write(tokenizer.to_hub_json())
                undo.callback(vocabulary.unlink)
            undo.pop_all()
    except OSError as error:
        raise BertjaxError(f"cannot write {file}: {error.strerror}; give another place") from error


def _check_free(*files: Path) -> None:
    for file in files:
        if file.exists():
            raise BertjaxError(f"{file} exists and is left as it is; give another name")


def _program(model: Bert, params: dict[str, Any]) -> bytearray:
    """Returns the encoder, its weights in it as constants, serialised for every batch and length."""

    def encode(tokens_bt: Array, segments_bt: Array, mask_bt: Array) -> Array:
        # What is not known to be constant is computed as in our own programs, to the last bit.
        variables = {"params": jax.lax.optimization_barrier(params)}
        positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1])[None], tokens_bt.shape)
        encoded_btd = model.apply(variables, tokens_bt, segments_bt, positions_bt, mask_bt, method=model.encode)
        return jnp.where(mask_bt[:, :, None] > 0, encoded_btd, 0)

    from jax import export

    shape = export.symbolic_shape("b, t", constraints=[f"t <= {model.config.max_position}"])
    args_bt = [jax.ShapeDtypeStruct(shape, jnp.int32)] * 3
    return export.export(jax.jit(encode), platforms=PLATFORMS)(*args_bt).serialize()
