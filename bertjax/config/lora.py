"""The lora section: low-rank adaptation of kernels that stay as they are."""

import dataclasses
import math
from typing import Literal

from bertjax.config.checks import require, require_at_least, require_types

Kernels = Literal["query+value", "attention", "all"]


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adaptation, LoRA (Hu et al. 2021), in place of training all weights"""

    rank: int | None = None
    """rank of what is learned for each adapted kernel and added to it, while all else but the heads stays as it is; by
    default all weights learn"""
    alpha: float = 16.0
    """factor of what is added, divided by lora.rank"""
    kernels: Kernels = "all"
    """kernels of the encoder layers that are adapted: those of queries and values, of attention, or all"""

    def __post_init__(self) -> None:
        require_types(self, "lora")
        if self.rank is not None:
            require_at_least(self, "lora", 1, "rank")
        require(0 < self.alpha < math.inf, f"lora.alpha={self.alpha} is impossible; give a positive number")
