"""The seam between this package and one family of models elsewhere: what `hub.folder` asks of each.

A new family is one file beside this one that makes a `Family`, and its entry in `hub.folder.FAMILIES`.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub.tensors import Tensors

Head = Literal["labels of texts", "labels of tokens", "answers"]
HEADS = ("pooler", "mlm", "nsp")  # parts of our model that a folder may lack: no encoding needs them


class Carried(NamedTuple):
    """Values of one setting of the model that a format has a place for."""

    values: Sequence[Any]
    reason: str  # why there are no others, as a clause: "its norms stand after each sublayer"
    remedy: str = ""  # the values, as a message names them; by default all


class LabelHead(NamedTuple):
    """A format's head for labels or numbers of texts, for labels of tokens, or for answers."""

    names: Mapping[str, str]  # as `Family.names` has them, of parameters that it has no other name for
    carried: Mapping[str, Carried] = MappingProxyType({})  # settings of our model that the head limits


def transpose_kernels(config: BertConfig, path: str, array: np.ndarray) -> np.ndarray:
    """Turns a linear layer's weight from [in, out], as we have it, to PyTorch's [out, in], or back."""
    return array.T if path.endswith("/kernel") else array


def unchanged(config: BertConfig, tensors: Tensors) -> Tensors:
    """Returns the tensors as they are."""
    return tensors


class Family(NamedTuple):
    """Names, shapes and settings of one family, both ways.

    Where `names` gives several of our parameters the same name, the tensor of that name is made of them in the table's
    order, in equal parts along its first axis: queries, keys and values in one matrix, say.
    """

    name: str  # in messages: "BERT"
    model_type: str  # in config.json
    architecture: str  # what its classes' names begin with
    carried: Mapping[str, Carried]  # settings of our model that the format limits
    read_config: Callable[[dict[str, Any]], BertConfig]  # of config.json; a BertjaxError says what we cannot compute
    write_config: Callable[[BertConfig, Set[str]], dict[str, Any]]  # the same, made; for a model with these of HEADS
    names: Callable[[BertConfig], dict[str, str]]  # for the path of every parameter here its name there
    text_head: LabelHead | None  # for labels of a text; None where we cannot compute its own
    token_head: LabelHead | None  # for labels of tokens, likewise
    answer_head: LabelHead | None  # for where answers begin and end, likewise
    to_ours: Callable[[BertConfig, str, np.ndarray], np.ndarray] = transpose_kernels  # by our path
    to_theirs: Callable[[BertConfig, str, np.ndarray], np.ndarray] = transpose_kernels
    # Old names and copies settled, all theirs; what it knows and we have no place for, as heads of tasks, is left out.
    after_reading: Callable[[BertConfig, Tensors], Tensors] = unchanged
    before_writing: Callable[[BertConfig, Tensors], Tensors] = unchanged  # copies and constants added, all theirs
    pad: int | None = None  # the number that padding must have; None where any will do
    tokenizer_class: str | None = None  # that other tools are to read the tokenizer with; by default as it is made


def carrying_family(families: Sequence[Family], config: BertConfig, head: Head | None = None) -> Family:
    """Returns the first of the families whose format carries the model exactly, but for an NSP head it may not have.

    Args:
      head: what the model's head, if it was fine-tuned, tells.

    Raises:
      BertjaxError: none does; all reasons and remedies are named for the nearest, the first with the fewest.
    """
    lacking = {family.name: _not_carried(family, config, head) for family in families}
    nearest = min(families, key=lambda family: len(lacking[family.name]))
    check_carried(nearest, config, head)
    return nearest


def check_carried(family: Family, config: BertConfig, head: Head | None = None) -> None:
    """Checks that the family's format can carry the model.

    Args:
      head: as of `carrying_family`.

    Raises:
      BertjaxError: it cannot; all reasons and remedies are named.
    """
    lacking = _not_carried(family, config, head)
    if not lacking:
        return
    reasons, remedies = zip(*lacking, strict=True)
    instead = f"train with {', '.join(filter(None, remedies))}, or " if any(remedies) else ""
    raise BertjaxError(
        f"{family.name}'s format has no place for {', '.join(reasons)}; {instead}"
        "export with --format stablehlo, which carries any model"
    )


def label_head(family: Family, head: Head) -> LabelHead | None:
    """Returns the place of the family's format for such a head of ours, None where it has none."""
    heads = {"labels of texts": family.text_head, "labels of tokens": family.token_head, "answers": family.answer_head}
    return heads[head]


def _not_carried(family: Family, config: BertConfig, head: Head | None) -> list[tuple[str, str]]:
    """What the format has no place for, with the reason, and the setting that it has one for."""
    of_head = None if head is None else label_head(family, head)
    lacking = [
        (
            f"model.{key}={_written(getattr(config, key))} ({reason})",
            f"model.{key}={remedy or ' or '.join(map(_written, values))}",
        )
        for key, (values, reason, remedy) in {**family.carried, **(of_head.carried if of_head else {})}.items()
        if getattr(config, key) not in values
    ]
    if head is not None and of_head is None:
        lacking.append((f"the head for {head} (its own is another)", ""))
    return lacking


def read_settings(theirs: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """Returns numbers of a config.json under our names.

    Args:
      theirs: the content of config.json.
      keys: for each of our settings its name there; those that are not there are left out.

    Raises:
      BertjaxError: one is not a number.
    """
    found = {ours: theirs[key] for ours, key in keys.items() if key in theirs}
    for name, value in found.items():
        expected = (int, float) if name in ("dropout", "layer_norm_eps") else int
        if isinstance(value, bool) or not isinstance(value, expected):
            raise BertjaxError(f"{keys[name]}={value!r} is not a number; fetch it again")
    return found


def read_theta(rope: Mapping[str, Any], key: str, default: Any) -> float:
    """Returns the base of rotary positions' angles that a config.json gives.

    Args:
      rope: its `rope_parameters`.
      key: what an error calls the base.
      default: the base where it is not there.

    Raises:
      BertjaxError: it is not a number, or the angles are of another kind.
    """
    if (how := rope.get("rope_type", "default")) != "default":
        raise BertjaxError(f"rope_parameters: rope_type={how!r} is not supported; only 'default' is")
    theta = rope.get("rope_theta", default)
    if isinstance(theta, bool) or not isinstance(theta, int | float):
        raise BertjaxError(f"{key}={theta!r} is not a number; fetch it again")
    return float(theta)


def _written(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
