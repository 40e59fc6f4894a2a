"""The optim section: the optimiser and its learning rate."""

import dataclasses
import math
from typing import Literal

from bertjax.config.checks import require, require_at_least, require_shares, require_types


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimiser"""

    name: Literal["adam", "adamw", "lamb", "muon"] = "adamw"
    """Adam; AdamW, with weight decay on matrices only (not on biases and norms); LAMB, with weight decay and updates
    scaled by a parameter's norm on matrices only; or Muon on the matrices of the encoder layers, with AdamW on the
    rest"""
    learning_rate: float = 1e-4
    """peak learning rate"""
    muon_learning_rate: float = 0.02
    """peak learning rate of the parameters that Muon updates"""
    nsp_learning_rate: float | None = None
    """peak learning rate of the NSP head's parameters, on the same schedule; by default optim.learning_rate. One that
    compares (model.nsp_features=pair) reads four times the features, so that the same rate moves it further"""
    layer_decay: float = 1.0
    """learning rate of each encoder layer as a share of that of the layer above it, such as 0.9; the last layer's is
    this share of the heads', and the embeddings' that of the first layer's. 1 for the same rate in all"""
    freeze_layers: int | None = None
    """number of first encoder layers that stay as they are, and the embeddings with them: 0 for the embeddings alone;
    by default everything learns"""
    warmup_steps: int = 0
    """number of steps in which the learning rate rises linearly to its peak"""
    warmup_share: float | None = None
    """share of all steps to warm up in, in place of optim.warmup_steps"""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    """learning rate after the warm-up: constant; falling to 0 at the last step, linearly or along a cosine; or wsd
    (warm-up, stable, decay): constant first, then falling"""
    decay_share: float = 0.2
    """share of all steps in which the learning rate falls under wsd, above 0 and up to 1"""
    b1: float = 0.9
    """decay rate of the running mean of gradients"""
    b2: float = 0.999
    """decay rate of the running mean of squared gradients"""
    eps: float = 1e-8
    """constant added to the root of the mean squared gradient"""
    weight_decay: float = 0.0
    """weight decay, multiplied by the learning rate; adam takes none"""
    clip_norm: float | None = None
    """largest global norm of the gradients, to which larger ones are scaled down; by default they are not clipped"""
    ema_decay: float | None = None
    """decay rate, such as 0.999, of an exponential moving average of the weights, which then is what is evaluated,
    encoded with, exported, and started from by another run; by default there is none"""

    def __post_init__(self) -> None:
        require_types(self, "optim")
        require_at_least(self, "optim", 0, "warmup_steps", "weight_decay")
        for name in ("learning_rate", "muon_learning_rate", "nsp_learning_rate", "eps", "clip_norm"):
            value = getattr(self, name)
            require(
                value is None or 0 < value < math.inf, f"optim.{name}={value} is impossible; give a positive number"
            )
        require(
            self.freeze_layers is None or self.freeze_layers >= 0,
            f"optim.freeze_layers={self.freeze_layers} is no number of layers; give 0 or more, or leave it out",
        )
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optim.{name}={value} is not a decay; give 0 <= {name} < 1")
        require(
            self.warmup_share is None or (0 <= self.warmup_share < 1 and not self.warmup_steps),
            f"optim.warmup_share={self.warmup_share} with optim.warmup_steps={self.warmup_steps} is no warm-up; "
            "give a share below 1, or steps, not both",
        )
        require(
            self.name != "adam" or self.weight_decay == 0,
            f"optim.weight_decay={self.weight_decay} has no effect with optim.name=adam; use adamw or give 0",
        )
        require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            f"optim.ema_decay={self.ema_decay} is not a decay; give 0 < ema_decay < 1, or leave it out",
        )
        require_shares(self, "optim", "decay_share", "layer_decay")

    def warmup_of(self, steps: int) -> int:
        """Returns how many of a run's steps the learning rate rises in."""
        return self.warmup_steps if self.warmup_share is None else round(self.warmup_share * steps)

    def over(self, steps: int) -> "OptimConfig":
        """Returns the same with a share of so many steps in steps."""
        return dataclasses.replace(self, warmup_steps=self.warmup_of(steps), warmup_share=None)
