"""What a run's metrics.jsonl tells of each head."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Figures(NamedTuple):
    """Loss and accuracy of a head, under the name that people know it by."""

    name: str
    loss: float
    accuracy: float


def figures(means: Mapping[str, Any], heads: Mapping[str, str], prefix: str = "") -> list[Figures]:
    """Figures of each head that learns, unless it had nothing to predict.

    Args:
      heads: what people call each head, by its name in the means.
      prefix: what the means' names begin with.
    """
    return [
        Figures(name, means[f"{prefix}{head}_loss"], means[f"{prefix}{head}_accuracy"])
        for head, name in heads.items()
        if f"{prefix}{head}_loss" in means
    ]
