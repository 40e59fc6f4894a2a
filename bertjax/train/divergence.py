"""Divergence: losses that are no number, or far above those before, and what a run does about them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bertjax.config import OptimConfig, TrainConfig
from bertjax.errors import DivergedError
from bertjax.runs.decisions import Skip

_SETTLED = 100  # steps in which a loss may do anything
_ROLLBACKS = 3  # to one checkpoint: by then it is not the batches


class LossSpike(Exception):
    """The loss of a step is too far above those before."""

    def __init__(self, step: int, rise: float):
        super().__init__(f"the loss of step {step} is {rise:.1f} times its recent mean")
        self.step = step


def batch_of(step: int, skips: Sequence[Skip]) -> int:
    """Returns the batch, counted from 0, that a step, counted from 1, learns from."""
    return step - 1 + sum(skip.batches for skip in skips if skip.after_step < step)


def check_step(step: int, means: Mapping[str, float], train: TrainConfig, params: Any) -> None:
    """Checks a step by its metrics.

    Args:
      step: its number, from 1.
      means: its metrics.
      params: as they are now, to name the largest.

    Raises:
      DivergedError: it is the last of too many steps in a row without a finite loss and gradients.
      LossSpike: its loss is above `train.spike_factor` times the recent mean.
    """
    in_a_row = round(means["skipped_in_a_row"])
    if in_a_row >= train.max_bad_steps:
        raise DivergedError(
            f"step {step} is number {in_a_row} in a row without a finite loss and gradients (train.max_bad_steps="
            f"{train.max_bad_steps}); the largest parameters are {_largest(params)}; the last checkpoint stays: "
            "lower optim.learning_rate or set optim.clip_norm, and train anew"
        )
    if train.spike_factor is not None and means["loss_rise"] > train.spike_factor:
        raise LossSpike(step, means["loss_rise"])


class RisingLoss:
    """Tells, once, of a loss that is above what it began with: the learning rate is too high.

    Args:
      losses: the names of the losses among the metrics.
      lines: metrics of the steps so far; none where the step to come is the first.
    """

    def __init__(self, optim: OptimConfig, losses: Sequence[str], lines: Iterable[Mapping[str, Any]] = ()):
        self._optim, self._losses, self._told = optim, losses, False
        self._first = next((loss_of(line, losses) for line in lines if "loss_rise" in line), None)

    def seen(self, step: int, means: Mapping[str, float]) -> str | None:
        """Returns a warning where there is one to give of a step.

        Args:
          means: the step's metrics.
        """
        loss = loss_of(means, self._losses)
        if loss is None or not means["loss_rise"]:
            return None
        self._first = loss if self._first is None else self._first
        recent = loss / means["loss_rise"]  # the mean before this step
        if self._told or step <= max(_SETTLED, self._optim.warmup_steps) or recent <= self._first:
            return None
        self._told = True
        return (
            f"WARNING:  the loss rises: its recent mean at step {step} is {recent:.3f}, above the {self._first:.3f} it "
            f"began with; stop and lower optim.learning_rate={self._optim.learning_rate:g}"
        )


def loss_of(means: Mapping[str, float | None], losses: Sequence[str]) -> float | None:
    """Returns the sum of the losses that had anything to predict; None where it is not finite.

    Args:
      losses: the names of the losses among the means.
    """
    there = [means[name] for name in losses if name in means]
    finite = [loss for loss in there if loss is not None and math.isfinite(loss)]
    return sum(finite) if finite and len(finite) == len(there) else None


def skip_after(step: int, spike: LossSpike, skips: Sequence[Skip]) -> Skip:
    """Returns all batches from a checkpoint's step to the spike, to be left out.

    Args:
      step: the checkpoint's.
      skips: those that were left out before.

    Raises:
      DivergedError: going back to this checkpoint has been of no help before.
    """
    if sum(skip.after_step == step for skip in skips) >= _ROLLBACKS:
        raise DivergedError(
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
