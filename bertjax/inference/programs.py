"""The compiled programs that make vectors of a batch of token ids: the model, what pools its output, words of masks."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bertjax.config import BertConfig, TrainConfig
from bertjax.models.bert import Bert, make_model
from bertjax.models.sentence import Layer, apply_layers, pool
from bertjax.parallel.sharding import ROW_AXES, by_rows, gathered_outside_layers, replicated

Precision = Literal["float32", "bfloat16"]


class EnginePrograms(NamedTuple):
    """Apart from what is made of the representations, which is soon compiled, the model is compiled once a shape."""

    forward: Callable[[Any, Array | np.ndarray], Array]
    pool: Callable[..., Array]
    words: Callable[..., Array]


@functools.lru_cache(maxsize=16)  # another engine of an equal model, loaded anew, compiles nothing
def make_programs(config: BertConfig, precision: Precision, mesh: Mesh, shortest: int) -> EnginePrograms:
    """Makes the programs of all engines of equal settings, which have placed their parameters.

    Args:
      config: the model's.
      precision: what matrix products multiply.
      mesh: over whose devices batches are split.
      shortest: tokens of the shortest text.
    """
    model = make_model(config, TrainConfig(precision=precision), learning=False).clone(mesh=mesh)
    batch, whole, as_placed = of_batch(mesh), replicated(mesh), None
    return EnginePrograms(
        jax.jit(functools.partial(_encode, model), in_shardings=(as_placed, batch), out_shardings=by_rows(mesh)),
        jax.jit(
            functools.partial(_pool, shortest),
            static_argnums=(0, 1),
            in_shardings=(whole, by_rows(mesh), batch),
            out_shardings=by_rows(mesh),
        ),
        jax.jit(
            functools.partial(_words, model),
            in_shardings=(as_placed, by_rows(mesh), whole, whole),
            out_shardings=whole,
        ),
    )


def of_batch(mesh: Mesh) -> NamedSharding:
    """Returns where tokens, segments, positions and sequences of a batch, [4, b, t], are: split by rows."""
    return NamedSharding(mesh, PartitionSpec(None, ROW_AXES))


def max_texts(length: int, shortest: int) -> int:
    """Returns how many texts a row of so many tokens has vectors for, where the shortest has so many."""
    return max(1, length // shortest)


def _encode(model: Bert, params: dict[str, Any], batch_4bt: Array) -> Array:
    """Returns the representation of each token, float32 [b, t, d]."""
    encoded_btd: Array = model.apply(
        {"params": gathered_outside_layers(params, model.mesh)}, *batch_4bt, method=model.encode
    )
    return encoded_btd


def _pool(
    shortest: int, pooling: tuple[str, ...], skip: int, layers: tuple[Layer, ...], encoded_btd: Array, batch_4bt: Array
) -> Array:
    """Returns what the layers make of each token's representation [b, t, e], or of each sequence's vector [b, k, e]."""
    if pooling == ("tokens",):
        return apply_layers(layers, encoded_btd)
    _, _, positions_bt, sequences_bt = batch_4bt
    num_sequences = max_texts(encoded_btd.shape[1], shortest)
    pooled_bke = pool(pooling, encoded_btd, positions_bt, sequences_bt, num_sequences=num_sequences, skip=skip)
    return apply_layers(layers, pooled_bke)


def _words(model: Bert, params: dict[str, Any], encoded_btd: Array, row_p: Array, column_p: Array) -> Array:
    """Returns how likely each token of the vocabulary is at places of the batch, float32 [p, v]."""
    variables = {"params": gathered_outside_layers(params, model.mesh)}
    return jax.nn.softmax(model.apply(variables, encoded_btd[row_p, column_p], method=model.words))
