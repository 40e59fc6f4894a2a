"""What a run left behind, to compare it with another; and what kills one inside this process."""

from pathlib import Path

import jax
import numpy as np

from bertjax.models.bert import Bert
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.sharding import with_sharding
from bertjax.runs.folder import RunFolder
from bertjax.train.optimizer import make_optimizer
from bertjax.train.state import saved_trees as trees_of
from bertjax.train.state import state_template


def saved_trees(folder: Path) -> list[np.ndarray]:
    """The leaves of the newest parameters and optimiser state."""
    run = RunFolder(folder)
    config = run.config()
    optimizer = make_optimizer(config.optim, config.train.steps)
    objective = pretraining_objective(Bert(config.model))
    template = state_template(objective, optimizer, averaging=config.optim.ema_decay is not None)
    template = with_sharding(template, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with run.checkpoints() as checkpoints:
        return jax.tree.leaves(checkpoints.restore(checkpoints.newest_step(), trees_of(template)))


def newest_step(folder: Path) -> int | None:
    with RunFolder(folder).checkpoints() as checkpoints:
        return checkpoints.latest_step()


def assert_same_end(ours: Path, theirs: Path) -> None:
    """Parameters, optimiser state, counters and metrics, bit for bit."""
    for mine, yours in zip(saved_trees(ours), saved_trees(theirs), strict=True):
        np.testing.assert_array_equal(mine, yours)
    assert RunFolder(ours).metrics.file.read_bytes() == RunFolder(theirs).metrics.file.read_bytes()


class Killed(BaseException):
    """What no room may catch."""


def die() -> None:
    raise Killed
