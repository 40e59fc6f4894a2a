"""What a run does about a loss that is no number, or far above those before."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bertjax.config import TrainConfig
from bertjax.errors import BertjaxError

_ROLLBACKS = 3  # to one checkpoint: by then it is not the batches


class Skip(NamedTuple):
    """Batches left out after a step, because the loss rose among them."""

    after_step: int
    batches: int


class LossSpike(Exception):
    """The loss of a step is too far above those before."""

    def __init__(self, step: int, rise: float):
        super().__init__(f"the loss of step {step} is {rise:.1f} times its recent mean")
        self.step = step


def batch_of(step: int, skips: Sequence[Skip]) -> int:
    """The batch, counted from 0, that a step, counted from 1, learns from."""
    return step - 1 + sum(skip.batches for skip in skips if skip.after_step < step)


def watch(step: int, means: Mapping[str, float], train: TrainConfig, params: Any) -> None:
    """Judges a step by its metrics.

    Args:
      params: as they are now, to name the largest.

    Raises:
      BertjaxError: it is the last of too many steps in a row without a finite loss and gradients.
      LossSpike: its loss is above `train.spike_factor` times the recent mean.
    """
    in_a_row = round(means["skipped_in_a_row"])
    if in_a_row >= train.max_bad_steps:
        raise BertjaxError(
            f"step {step} is number {in_a_row} in a row without a finite loss and gradients (train.max_bad_steps="
            f"{train.max_bad_steps}); the largest parameters are {_largest(params)}; the last checkpoint stays: "
            "lower optim.learning_rate or set optim.clip_norm, and train anew"
        )
    if train.spike_factor is not None and means["loss_rise"] > train.spike_factor:
        raise LossSpike(step, means["loss_rise"])


def skip_after(step: int, spike: LossSpike, skips: Sequence[Skip]) -> Skip:
    """All batches from a checkpoint's step to the spike. Raises BertjaxError where that has been of no help before."""
    if sum(skip.after_step == step for skip in skips) >= _ROLLBACKS:
        raise BertjaxError(
            f"{spike}, although the run has gone back to step {step} {_ROLLBACKS} times and left batches out; "
            "lower optim.learning_rate, set optim.clip_norm, or give a greater train.spike_factor"
        )
    return Skip(step, spike.step - step)


def _largest(params: Any, count: int = 3) -> str:
    sizes = {
        "/".join(str(key.key) for key in path): float(jnp.abs(leaf).max())
        for path, leaf in jax.tree.leaves_with_path(params)
    }
    names = sorted(sizes, key=sizes.__getitem__, reverse=True)[:count]
    return ", ".join(f"{name} (up to {sizes[name]:.3g})" for name in names)
