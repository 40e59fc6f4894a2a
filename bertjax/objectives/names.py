"""What a run learns, in words: how its heads and its sequences are called where people read of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# The heads that learn, by their names in metrics; in parameters too, where the one for pairs is always "nsp".
HEADS = {
    "mlm+nsp": {"mlm": "MLM", "nsp": "NSP"},
    "mlm+sop": {"mlm": "MLM", "nsp": "SOP"},
    "mlm": {"mlm": "MLM"},
}


class Figures(NamedTuple):
    """Of a head."""

    name: str
    loss: float
    accuracy: float


def figures(means: Mapping[str, Any], objective: str, prefix: str = "") -> list[Figures]:
    """Of each head that learns, unless it had nothing to predict.

    Args:
      prefix: of the means' names.
    """
    return [
        Figures(name, means[f"{prefix}{head}_loss"], means[f"{prefix}{head}_accuracy"])
        for head, name in HEADS[objective].items()
        if f"{prefix}{head}_loss" in means
    ]


def sequences(objective: str) -> str:
    """What a sequence is called, in the plural."""
    return "sequences" if objective == "mlm" else "pairs"
