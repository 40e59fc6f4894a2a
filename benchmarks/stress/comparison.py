"""Compares two finished runs, bit for bit."""

from pathlib import Path

import jax
import numpy as np

from bertjax.models.bert import make_model
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.sharding import make_mesh, replicated, with_sharding
from bertjax.runs.folder import RunFolder
from bertjax.train.optimizer import make_optimizer
from bertjax.train.state import saved_trees, state_template


def differences(run: Path, other: Path) -> list[str]:
    """Returns a line for whatever differs: metrics, the last step, parameters or optimiser state.

    Raises:
      BertjaxError: one of them has no checkpoint.
    """
    found = []
    lines, expected_lines = (RunFolder(path).metrics.file.read_bytes().splitlines() for path in (run, other))
    if len(lines) != len(expected_lines):
        found.append(f"metrics.jsonl has {len(lines)} lines instead of {len(expected_lines)}")
    unlike = (number for number, (a, b) in enumerate(zip(lines, expected_lines, strict=False), 1) if a != b)
    if number := next(unlike, None):
        found.append(f"metrics.jsonl differs from line {number} on")
    state, expected = final_state(run), final_state(other)
    return found + [f"{name} differs" for name in sorted(state | expected) if state.get(name) != expected.get(name)]


def final_state(run: Path) -> dict[str, bytes]:
    """Returns the newest checkpoint's step and its arrays as bytes, type and shape included, by their paths."""
    folder = RunFolder(run)
    config = folder.config()
    model, optimizer = make_model(config.model, config.train), make_optimizer(config.optim, config.train.steps)
    template = state_template(pretraining_objective(model), optimizer, averaging=config.optim.ema_decay is not None)
    trees = saved_trees(template)
    here = replicated(make_mesh(devices=jax.devices()[:1]))
    with folder.checkpoints() as checkpoints:
        step = checkpoints.newest_step()
        trees = checkpoints.restore(step, with_sharding(trees, here))
    found = {"step": np.asarray(step)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        found[jax.tree_util.keystr(path, simple=True, separator="/")] = np.asarray(leaf)
    return {name: f"{x.dtype}{x.shape}".encode() + x.tobytes() for name, x in found.items()}
