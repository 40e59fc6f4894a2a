"""Parameters by how far above the text they lie, embeddings, encoder layers and heads; which learn, and which stay."""

import re
from typing import Any

import jax

from bertjax.errors import BertjaxError
from bertjax.models.lora import LORA

Params = dict[str, Any]

# Where a parameter lies, by its whole path, which fits exactly one. A new head needs its name here.
DEPTHS = (
    (r"\w+_embedding|embedding_(norm|projection)/\w+|relative_(norm/\w+|attention_bias)", "embeddings"),
    (rf"(?:{LORA}/)?block_(\d+)/.+", "layer"),
    (r"(final_norm|mlm|pooler|nsp|classifier|teacher_projection)/.+", "head"),
)


def depths(params: Params) -> tuple[Params, int]:
    """Returns how deep each parameter lies: 0 for embeddings, n for layer n, counted from 1; and most for heads.

    Returns:
      A tree of numbers, and the heads' number, which is one above the last layer's.

    Raises:
      BertjaxError: a parameter fits no rule of `DEPTHS`, or several.
    """
    layers = [re.match(rf"(?:{LORA}/)?block_(\d+)/", _name(path)) for path, _ in jax.tree.leaves_with_path(params)]
    top = max((int(match[1]) + 2 for match in layers if match), default=1)

    def depth(path: tuple[Any, ...], _: Any) -> int:
        name = _name(path)
        found = [(match, where) for rule, where in DEPTHS if (match := re.fullmatch(rule, name))]
        if len(found) != 1:
            raise BertjaxError(
                f"{name} fits {len(found) or 'none'} of the rules of bertjax/models/parts.py, which say how deep a "
                "parameter lies; give it one in DEPTHS, or train without optim.layer_decay and optim.freeze_layers"
            )
        match, where = found[0]
        return int(match[1]) + 1 if where == "layer" else {"embeddings": 0, "head": top}[where]

    return jax.tree.map_with_path(depth, params), top


def split(params: Params, freeze_layers: int | None) -> tuple[Params, Params | None]:
    """Returns the parameters that learn, and those that stay as they are, None where all learn.

    Where there are adapters, all stays but they and the heads.

    Args:
      params: nested, of arrays or of whatever has a place among them.
      freeze_layers: number of first layers that stay, with the embeddings; None for nothing.

    Raises:
      BertjaxError: nothing would learn.
    """
    if freeze_layers is None and LORA not in params:
        return params, None
    depth_of, top = depths(params)
    last = -1 if freeze_layers is None else freeze_layers

    def stays_there(path: tuple[Any, ...], depth: int) -> bool:
        return depth <= last or (LORA in params and depth < top and path[0].key != LORA)

    stays = jax.tree.map_with_path(stays_there, depth_of)
    learning = _where(params, stays, False)
    if not learning:
        raise BertjaxError(
            f"optim.freeze_layers={freeze_layers} leaves nothing to learn, as there is no head; give less"
        )
    return learning, _where(params, stays, True)


def joined(learning: Params, frozen: Params | None) -> Params:
    """Returns all parameters, from the two parts that `split` gives."""
    if frozen is None:
        return learning
    both = {name: joined(learning[name], frozen[name]) for name in learning.keys() & frozen.keys()}
    return learning | frozen | both


def _where(params: Params, stays: Params, wanted: bool) -> Params:
    chosen = {
        name: _where(part, stays[name], wanted) if isinstance(part, dict) else part
        for name, part in params.items()
        if isinstance(part, dict) or stays[name] == wanted
    }
    return {name: part for name, part in chosen.items() if not isinstance(part, dict) or part}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
