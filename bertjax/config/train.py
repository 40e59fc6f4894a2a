"""The train, eval, checkpoint and logging sections: the course of a run."""

import dataclasses
import math
import re
from typing import Literal

from bertjax.config.checks import require, require_at_least, require_shares

OnFailure = Literal["stop", "continue"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Training"""

    steps: int = 1000
    """optimiser steps"""
    budget: str | None = None
    """wall-clock time of the whole run, restarts and evaluations included, such as 90s, 10m or 2h; the learning rate of
    optim.schedule=wsd begins to fall when it has to for that, and train.steps are the most steps"""
    batch_size: int = 256
    """pairs, or what the objective has instead, in a step, over all devices"""
    batch_warmup_steps: int = 0
    """first steps, which have smaller batches: an eighth in the first third of them, then a quarter, then a half"""
    gradient_accumulation_steps: int = 1
    """parts a batch is computed in, one after the other, to save memory; the gradients are the same"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """what matrix products multiply; parameters, optimiser state and sums of products are float32 with either"""
    nsp_weight: float = 1.0
    """what the NSP loss counts for beside the MLM loss in what gradients are taken of; 1 in BERT"""
    z_loss: float = 0.0
    """of the squared log of the softmax's denominator over the vocabulary, added to what gradients are taken of, so
    that logits stay near 0 (Chowdhery et al. 2022, section 5, have 1e-4); the losses told are without it"""
    remat: bool = False
    """compute a layer's activations again on the way back instead of keeping them: less memory, more time"""
    scan_layers: bool = False
    """compile one encoder layer and loop over it: deep models compile several times faster"""
    log_every: int = 10
    """steps between lines of metrics.jsonl"""
    max_bad_steps: int = 10
    """steps in a row whose loss or gradients are not finite, each of which changes nothing, until the run stops"""
    spike_factor: float | None = None
    """go back to the last checkpoint, and leave out the batches since, when the loss is so many times the recent"""

    def __post_init__(self) -> None:
        require_at_least(
            self, "train", 1, "steps", "batch_size", "gradient_accumulation_steps", "log_every", "max_bad_steps"
        )
        require(
            self.spike_factor is None or 1 < self.spike_factor < math.inf,
            f"train.spike_factor={self.spike_factor} is no rise; give a number above 1, or leave it out",
        )
        require(
            self.batch_size % self.gradient_accumulation_steps == 0,
            f"train.batch_size={self.batch_size} is not divisible by train.gradient_accumulation_steps="
            f"{self.gradient_accumulation_steps}; change one of them",
        )
        require(
            self.budget is None or self.budget_seconds is not None,
            f"train.budget={self.budget} is no time; give seconds, minutes or hours, such as 90s, 10m or 2h",
        )
        require_at_least(self, "train", 0, "batch_warmup_steps")
        require(
            self.batch_warmup_steps <= self.steps,
            f"train.batch_warmup_steps={self.batch_warmup_steps} is above train.steps={self.steps}; "
            "warm up for fewer steps or train longer",
        )
        require(
            self.budget is None or self.batch_warmup_steps == 0,
            f"train.batch_warmup_steps={self.batch_warmup_steps} makes steps of unlike length, from which "
            f"train.budget={self.budget} cannot tell how many there is time for; leave one of them out",
        )
        for name in ("nsp_weight", "z_loss"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"train.{name}={value} is impossible; give 0 or more")

    @property
    def budget_seconds(self) -> float | None:
        """The budget as a number; None where there is none."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", self.budget or "")
        if match is None or float(match[1]) == 0:
            return None
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Held-out figures"""

    every: int = 0
    """steps between evaluations; 0 for one at the end only"""
    mlm_probability: float | None = None
    """share of the words to predict; it, max_length and too_long are the same in all runs whose figures are to be
    compared; by default data.mlm_probability"""
    max_length: int | None = None
    """tokens in a held-out sequence at most; by default data.max_length"""
    too_long: Literal["truncate", "drop"] | None = None
    """what becomes of a held-out sequence longer than that; by default data.too_long"""

    def __post_init__(self) -> None:
        require_at_least(self, "eval", 0, "every")
        if self.max_length is not None:
            require_at_least(self, "eval", 5, "max_length")
        require_shares(self, "eval", "mlm_probability")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints"""

    every: int = 0
    """steps between checkpoints; 0 for one at the end only"""
    keep: int = 3
    """newest checkpoints that stay"""
    on_failure: OnFailure = "stop"
    """what to do when the disk is full or otherwise fails: stop, or train on and try again at the next checkpoint"""

    def __post_init__(self) -> None:
        require_at_least(self, "checkpoint", 0, "every")
        require_at_least(self, "checkpoint", 1, "keep")


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """Logging"""

    tensorboard: bool = False
    """write what metrics.jsonl and timings.jsonl get as TensorBoard's events too, in run_dir/tensorboard"""
