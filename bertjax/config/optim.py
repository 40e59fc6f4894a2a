"""The optim section: the optimizer and its learning rate."""

import dataclasses
import math
from typing import Literal

from bertjax.config.checks import require, require_at_least, require_shares


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimiser"""

    name: Literal["adam", "adamw", "lamb", "muon"] = "adamw"
    """Adam; AdamW or LAMB, with decay on matrices only (no biases, no norms); or Muon on the matrices of the encoder's
    layers, with AdamW on the rest"""
    learning_rate: float = 1e-4
    """highest learning rate"""
    muon_learning_rate: float = 0.02
    """highest learning rate of what Muon is for"""
    warmup_steps: int = 0
    """steps over which the learning rate rises in equal parts to its highest"""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    """what the learning rate does after warm-up: stays, or falls to 0 at the last step, or stays, then falls (wsd)"""
    decay_share: float = 0.2
    """share of the steps in which the learning rate falls under wsd"""
    b1: float = 0.9
    """decay of the mean of gradients"""
    b2: float = 0.999
    """decay of the mean of squared gradients"""
    eps: float = 1e-8
    """added to the root of the mean of squares"""
    weight_decay: float = 0.0
    """AdamW's decay, times the learning rate"""
    clip_norm: float | None = None
    """largest global norm of the gradients; longer ones are scaled down to it"""
    ema_decay: float | None = None
    """mean of the weights over the last steps, each older step counting so many times less, such as 0.999; it is what
    is evaluated, encoded with and exported, and what another run starts from"""

    def __post_init__(self) -> None:
        require_at_least(self, "optim", 0, "warmup_steps", "weight_decay")
        for name in ("learning_rate", "muon_learning_rate", "eps", "clip_norm"):
            value = getattr(self, name)
            require(
                value is None or 0 < value < math.inf, f"optim.{name}={value} is impossible; give a positive number"
            )
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optim.{name}={value} is not a decay; give 0 <= {name} < 1")
        require(
            self.name != "adam" or self.weight_decay == 0,
            f"optim.weight_decay={self.weight_decay} has no effect with optim.name=adam; use adamw or give 0",
        )
        require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            f"optim.ema_decay={self.ema_decay} is not a decay; give 0 < ema_decay < 1, or leave it out",
        )
        require_shares(self, "optim", "decay_share")
