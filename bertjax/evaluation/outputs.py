"""What a model tells of examples, all of them, on the host."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from bertjax.data.batching.packed import PackedBatches
from bertjax.objectives.objective import Params
from bertjax.parallel.sharding import place_rows, replicated, rows_here


def outputs_of(
    told: "functools.partial[Array]",
    params: Params,
    batches: PackedBatches[Any],
    mesh: Mesh,
    *,
    places: Callable[[int], np.ndarray] | None = None,
    count: int | None = None,
) -> np.ndarray:
    """Returns what is told of each example, [n, c], in the order of the examples; or of each token.

    Args:
      told: [b, k, c] of a batch, or [b, t, c], from parameters: a function with its first arguments, by which its
        program is shared.
      params: over the mesh.
      places: of a step's batch the number of each example, [b, k]; or of each token, [b, t]; -1 where there is none.
      count: n.
    """
    places, count = places or batches.numbers_at, count or batches.num_sequences
    rows = rows_here(batches.num_rows, mesh)
    program = _compiled(told.func, told.args, mesh)
    outputs_nc = np.zeros((0, 0), np.float32)
    for step in range(batches.steps_in_epoch):
        numbers_bk = places(step)
        told_bkc = np.asarray(program(params, place_rows(batches.batch_at(step, rows.some), rows, mesh)))
        if not outputs_nc.size:
            outputs_nc = np.zeros((count, told_bkc.shape[-1]), told_bkc.dtype)
        there_bk = numbers_bk >= 0
        outputs_nc[numbers_bk[there_bk]] = told_bkc[: len(numbers_bk)][there_bk]
    return outputs_nc


@functools.lru_cache(maxsize=2)
def _compiled(told: Callable[..., Array], first: tuple[Any, ...], mesh: Mesh) -> Callable[[Params, Any], Array]:
    return jax.jit(functools.partial(told, *first), out_shardings=replicated(mesh))
