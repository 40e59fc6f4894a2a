"""What a model tells of examples, all of them, on the host."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from bertjax.data.batching.labelled import LabelledBatches
from bertjax.objectives.objective import Params
from bertjax.parallel.sharding import place_rows, replicated, rows_here


def outputs_of(told: "functools.partial[Array]", params: Params, batches: LabelledBatches, mesh: Mesh) -> np.ndarray:
    """Returns what is told of each example, float32 [n, c], in the order of the examples.

    Args:
      told: [b, k, c] of a batch, from parameters: a function with its first arguments, by which its program is shared.
      params: over the mesh.
    """
    rows = rows_here(batches.num_rows, mesh)
    program = _compiled(told.func, told.args, mesh)
    outputs_nc = np.zeros((0, 0), np.float32)
    for step in range(batches.steps_in_epoch):
        numbers_bk = batches.numbers_at(step)
        told_bkc = np.asarray(program(params, place_rows(batches.batch_at(step, rows.some), rows, mesh)))
        if not outputs_nc.size:
            outputs_nc = np.zeros((batches.num_sequences, told_bkc.shape[-1]), np.float32)
        there_bk = numbers_bk >= 0
        outputs_nc[numbers_bk[there_bk]] = told_bkc[: len(numbers_bk)][there_bk]
    return outputs_nc


@functools.lru_cache(maxsize=2)
def _compiled(told: Callable[..., Array], first: tuple[Any, ...], mesh: Mesh) -> Callable[[Params, Any], Array]:
    return jax.jit(functools.partial(told, *first), out_shardings=replicated(mesh))
