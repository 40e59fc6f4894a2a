"""Whether two finished runs are the same, bit for bit."""

import functools
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bertjax.model import make_model
from bertjax.optim import make_optimizer
from bertjax.run import RunFolder
from bertjax.sharding import with_sharding
from bertjax.train import init_state

_TIMINGS = {"pairs_per_second"}  # of metrics.jsonl: no two runs have the same


def differences(run: Path, other: Path) -> list[str]:
    """A line for whatever differs: lines of metrics, steps, parameters or optimiser state; none for equal runs.

    Raises:
      BertjaxError: one of them has no checkpoint.
    """
    lines, other_lines = metrics(run), metrics(other)
    found = []
    if len(lines) != len(other_lines):
        found.append(f"metrics.jsonl has {len(lines)} lines instead of {len(other_lines)}")
    for number, (line, expected) in enumerate(zip(lines, other_lines, strict=False), 1):
        if line != expected:
            found.append(f"metrics.jsonl, line {number}: {line} instead of {expected}")
            break
    state, expected_state = final_state(run), final_state(other)
    for path in sorted(state.keys() | expected_state.keys()):
        if state.get(path) != expected_state.get(path):
            found.append(f"{path} differs")
    return found


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what was read from a clock."""
    return [{key: line[key] for key in line if key not in _TIMINGS} for line in RunFolder(run).metrics()]


def final_state(run: Path) -> dict[str, bytes]:
    """The newest checkpoint's number and its arrays, type and shape included, by their paths."""
    folder = RunFolder(run)
    config = folder.config()
    optimizer = make_optimizer(config.optim, config.train.steps)
    fresh = functools.partial(init_state, make_model(config.model, config.train), optimizer, config.seed)
    template = with_sharding(jax.eval_shape(fresh), jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with folder.checkpoints() as checkpoints:
        step = folder.latest_step(checkpoints)
        trees = checkpoints.restore(step, {"params": template.params, "opt_state": template.opt_state})
    leaves = itertools.chain.from_iterable(jax.tree.leaves_with_path(tree) for tree in ({"step": step}, trees))
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return {path: repr((x.dtype, x.shape)).encode() + x.tobytes() for path, x in arrays.items()}
