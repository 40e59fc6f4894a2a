"""The train, eval, checkpoint and logging sections: the course of a run."""

import dataclasses
import math
import re
from typing import Literal

from bertjax.config.checks import require, require_at_least, require_shares, require_types

OnFailure = Literal["stop", "continue"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Training"""

    steps: int = 1000
    """number of optimiser steps"""
    epochs: float | None = None
    """number of times that each labelled example is learned from, from which train.steps follows, when fine-tuning"""
    budget: str | None = None
    """wall-clock time of the whole run, restarts and evaluations included, such as 90s, 10m or 2h; the learning rate,
    of optim.schedule=wsd, begins to fall when the time left requires it, and train.steps is the most steps taken"""
    batch_size: int = 256
    """sequences in each step, over all devices"""
    batch_warmup_steps: int = 0
    """number of first steps with smaller batches: an eighth of train.batch_size in the first third of them, then a
    quarter, then a half"""
    gradient_accumulation_steps: int | Literal["auto"] = 1
    """parts in which each batch is computed, one after the other, to save memory; the gradients stay the same; auto for
    as few as fit the devices' memory, which the run decides once"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """precision of the inputs of matrix products; parameters, optimiser state and sums are float32 in either case;
    bfloat16 is faster on GPUs, on CPUs with AMX and on AMD's with avx512_bf16, not on other CPUs"""
    nsp_weight: float = 1.0
    """weight of the NSP loss, where that of the MLM loss is 1; 1 in BERT"""
    z_loss: float = 0.0
    """weight of the squared log of the softmax's denominator over the vocabulary, added to the loss to keep logits near
    0 (Chowdhery et al. 2022, section 5, use 1e-4); reported losses do not include it"""
    remat: bool = False
    """whether the backward pass computes each layer's activations again instead of keeping them: less memory, more
    time"""
    scan_layers: bool = False
    """whether one encoder layer is compiled and looped over: deep models compile several times faster"""
    log_every: int = 10
    """number of steps between lines of metrics.jsonl"""
    max_bad_steps: int = 10
    """number of steps in a row with a loss or gradients that are not finite after which the run stops; each such step
    is skipped"""
    spike_factor: float | None = None
    """return to the last checkpoint, and skip the batches since, when the loss exceeds its recent value this many
    times; by default never"""

    def __post_init__(self) -> None:
        require_types(self, "train")
        require_at_least(self, "train", 1, "steps", "batch_size", "log_every", "max_bad_steps")
        if self.gradient_accumulation_steps != "auto":
            require_at_least(self, "train", 1, "gradient_accumulation_steps")
        require(
            self.spike_factor is None or 1 < self.spike_factor < math.inf,
            f"train.spike_factor={self.spike_factor} is no rise; give a number above 1, or leave it out",
        )
        require(
            self.batch_size % self.parts == 0,
            f"train.batch_size={self.batch_size} is not divisible by train.gradient_accumulation_steps="
            f"{self.gradient_accumulation_steps}; change one of them",
        )
        require(
            self.budget is None or self.budget_seconds is not None,
            f"train.budget={self.budget} is no time; give seconds, minutes or hours, such as 90s, 10m or 2h",
        )
        require(
            self.epochs is None or 0 < self.epochs < 2**31,
            f"train.epochs={self.epochs} is impossible; give a positive number",
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
    def parts(self) -> int:
        """Parts in which each batch is computed; 1 until they are decided."""
        return 1 if self.gradient_accumulation_steps == "auto" else self.gradient_accumulation_steps

    @property
    def budget_seconds(self) -> float | None:
        """Budget in seconds; None without a budget."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", self.budget or "")
        if match is None or float(match[1]) == 0:
            return None
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Held-out evaluation; runs whose figures are compared need the same values here"""

    every: int = 0
    """number of steps between evaluations; 0 for one at the end only, or after each epoch where eval.best is given"""
    best: str | None = None
    """held-out figure by which the best step is what the run gives, its checkpoint kept: loss, or one by its name;
    by default the last step is, whatever its figures"""
    patience: int | None = None
    """number of evaluations in a row without a better eval.best, of the loss by default, after which the run ends; by
    default it makes all its steps"""
    mlm_probability: float | None = None
    """share of a held-out sequence's words to mask for prediction; by default data.mlm_probability"""
    max_length: int | None = None
    """longest held-out sequence in tokens; by default data.max_length"""
    too_long: Literal["truncate", "drop"] | None = None
    """what to do with a longer held-out sequence; by default data.too_long"""

    def __post_init__(self) -> None:
        require_types(self, "eval")
        require_at_least(self, "eval", 0, "every")
        if self.patience is not None:
            require_at_least(self, "eval", 1, "patience")
            object.__setattr__(self, "best", self.best or "loss")
        if self.max_length is not None:
            require_at_least(self, "eval", 5, "max_length")
        require_shares(self, "eval", "mlm_probability")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints"""

    every: int = 0
    """number of steps between checkpoints; 0 for one at the end only"""
    keep: int = 3
    """number of newest checkpoints to keep"""
    on_failure: OnFailure = "stop"
    """what to do when a checkpoint or metrics cannot be written, as on a full disk: stop, or train on and try again at
    the next checkpoint"""

    def __post_init__(self) -> None:
        require_types(self, "checkpoint")
        require_at_least(self, "checkpoint", 0, "every")
        require_at_least(self, "checkpoint", 1, "keep")


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """Logging"""

    tensorboard: bool = False
    """whether metrics and timings are written as TensorBoard events too, in run_dir/tensorboard"""
    report: bool = True
    """whether report.html, a page for a browser, is written when the run ends, which takes some seconds"""

    def __post_init__(self) -> None:
        require_types(self, "logging")
