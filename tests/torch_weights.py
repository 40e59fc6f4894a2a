"""Weights of PyTorch's models as our parameters."""

from typing import Any

import numpy as np


def filled(tree: dict[str, Any], table: dict[str, str], tensors: Any, prefix: str = "") -> dict[str, Any]:
    """Their tensors in the places of our parameters."""
    made: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            made[name] = filled(value, table, tensors, f"{path}/")
        else:
            tensor = np.asarray(tensors[table[path]], np.float32)
            made[name] = tensor.T if name == "kernel" else tensor
    return made
