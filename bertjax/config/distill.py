"""The distill section: a teacher, whose predictions a pretraining run learns beside the words themselves."""

import dataclasses
import math
from typing import Literal

from bertjax.config.checks import expand_homes, require, require_layers, require_types

HiddenLoss = Literal["cosine", "mse"]


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Distillation (Hinton et al. 2015): a run learns from a trained model too; the defaults are DistilBERT's"""

    teacher: str | None = None
    """folder of a run or of a Hugging Face model, or ORG/NAME@REVISION on the hub, whose predictions are learned too;
    the vocabulary is its own, which init_from or tokenizer.path must bear out; it is in no checkpoint and no export"""
    mlm_weight: float = 2.0
    """weight of the MLM loss, of the words that were hidden"""
    logits_weight: float = 5.0
    """weight of how far what is predicted for hidden words is from what the teacher predicts, as KL divergence"""
    hidden_weight: float = 1.0
    """weight of how far hidden states are from the teacher's; where these have another size, a projection to it is
    learned"""
    temperature: float = 2.0
    """what logits of both are divided by before they are compared; the loss is multiplied by its square"""
    hidden_loss: HiddenLoss = "cosine"
    """how hidden states are compared: by 1 - cosine, or by the mean square of how they differ"""
    layers: tuple[int, ...] | None = None
    """numbers, from 0 on, of the run's encoder layers whose hidden states are compared, each with those of the
    teacher's layer that is as far up; by default the last alone"""

    def __post_init__(self) -> None:
        require_types(self, "distill")
        expand_homes(self, "teacher")
        for name in ("mlm_weight", "logits_weight", "hidden_weight"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"distill.{name}={value} is impossible; give 0 or more")
        require(
            self.logits_weight + self.hidden_weight > 0,
            "distill.logits_weight=0 and distill.hidden_weight=0 leave nothing to learn from a teacher; raise one",
        )
        require(
            0 < self.temperature < math.inf,
            f"distill.temperature={self.temperature} is impossible; give a positive number",
        )
        require_layers("distill.layers", self.layers)
