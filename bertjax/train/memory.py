"""Memory of a training step, and the parts in which a batch is computed to fit the devices'."""

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bertjax.errors import BertjaxError
from bertjax.parallel.memory import device_memory, in_words
from bertjax.parallel.process_group import Processes
from bertjax.parallel.sharding import by_name, by_rows, replicated, row_shards, rows_here, with_sharding
from bertjax.train.loop import Task
from bertjax.train.programs import MakePrograms, Programs, make_programs

_logger = logging.getLogger(__name__)


def in_parts_that_fit(
    task_in: Callable[[int], Task], processes: Processes, programs: MakePrograms | None = None
) -> tuple[int, MakePrograms]:
    """Finds the least number of parts in which batches can be computed for a step to fit the devices' memory.

    Steps of more and more parts are compiled, for what is compiled tells what memory it needs. No device runs one.

    Args:
      task_in: makes the task that is learned with batches in so many parts.
      processes: those of the run; the memory is that of the first one's devices.
      programs: makes the programs, as of `fit`.

    Returns:
      The number, and what gives `fit` the programs that were compiled for it.

    Raises:
      BertjaxError: one row a device is too much.
    """
    make, limit = programs or make_programs, processes.broadcast(device_memory)
    limit = None if limit is None else max(1, limit)  # a container may have nothing left
    task = task_in(1)
    most = max(1, task.train_batches.num_rows // row_shards(task.mesh))  # so that each part has a row on each device
    batch_size, parts, first = task.config.train.batch_size, 1, None
    while True:
        made = make(task.config, task.objective, task.mesh)
        needed = step_memory(task, made)
        first = first or needed
        if limit is None or needed <= limit:
            break
        # What a step needs for its rows shrinks as the parts grow more, and nothing else does.
        least = max(parts + 1, -(-parts * needed // limit))
        parts = next((more for more in range(least, most + 1) if batch_size % more == 0), 0)
        if not parts:
            raise BertjaxError(
                f"a step needs {in_words(needed)} of memory on each device, in as many parts as there can be, and "
                f"{in_words(limit)} are there; give --train.remat true, more devices, or a smaller data.max_length, "
                "train.batch_size or model"
            )
        task = task_in(parts)
    if parts > 1:
        assert limit is not None
        _logger.info(
            f"NOTICE:   each batch is computed in {parts} parts: in one a step needs {in_words(first)} of memory on "
            f"each device, where {in_words(limit)} are there; in {parts}, {in_words(needed)}"
        )
    return parts, lambda *_: made


def step_memory(task: Task, programs: Programs) -> int:
    """Returns how much memory a whole training step needs on each device, in bytes, state and batch included."""
    config, batches, mesh = task.config.train, task.train_batches, task.mesh
    rows = rows_here(batches.num_rows, mesh, parts=config.parts)
    one = batches.batch_at(0, range(1))
    whole = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows.total, *x.shape[1:]), x.dtype), one)
    state = with_sharding(programs.template, by_name(programs.template, mesh))
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=replicated(mesh))
    step: Any = programs.train_step(config.steps)
    told = step.lower(state, with_sharding(whole, by_rows(mesh)), seed).compile().memory_analysis()
    if told is None:  # a kind of device of which XLA does not tell
        return 0
    kept = told.argument_size_in_bytes + told.output_size_in_bytes - told.alias_size_in_bytes
    return int(kept + told.temp_size_in_bytes)
