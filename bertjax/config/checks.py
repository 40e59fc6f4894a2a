"""Checks that the sections and the public calls share. Each raises BertjaxError with name, value and remedy."""

import os
import reprlib
import types
import typing
from pathlib import Path
from typing import Any

from bertjax.errors import BertjaxError
from bertjax.storage.paths import url_of, user_path

_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def expand_homes(section: object, *names: str) -> None:
    """Puts home folders in place of `~` in these paths of a frozen dataclass; each may be None, and URLs stay URLs.

    Raises:
      BertjaxError: there is no such home folder.
    """
    for name in names:
        value = getattr(section, name)
        if isinstance(value, str | os.PathLike) and (text := os.fspath(value)).startswith(("~", "file:")):
            object.__setattr__(section, name, str(user_path(text)))


def require(condition: bool, message: str) -> None:
    """Raises BertjaxError with this message unless the condition holds."""
    if not condition:
        raise BertjaxError(message)


def require_at_least(section: object, prefix: str, least: float, *names: str) -> None:
    """Requires values of at least `least` and below 2**31.

    Args:
      section: the dataclass that has the values.
      prefix: the section's key in a recipe, such as "train".
      names: the values' names in the section.
    """
    for name in names:
        value = getattr(section, name)
        require(least <= value < 2**31, f"{prefix}.{name}={value} is impossible; give {least} or more, below 2**31")


def require_shares(section: object, prefix: str, *names: str) -> None:
    """Requires values above 0 and at most 1, or None; the arguments are those of `require_at_least`."""
    for name in names:
        value = getattr(section, name)
        require(value is None or 0 < value <= 1, f"{prefix}.{name}={value} is not a share; give 0 < {name} <= 1")


def as_type(value: Any, kind: Any, name: str) -> Any:
    """Returns a value as one of this type, where it is one or can only mean one.

    Args:
      value: numpy's and JAX's numbers and strings are taken as Python's, and paths as text or text as a path.
      kind: as annotations have it, such as `int | None` or a `Literal`. A path may be a URL.
      name: what the error calls it: the name of an argument, or a key such as "train.steps".

    Raises:
      BertjaxError: it is of another type, or a path in a home folder that is not there.
    """
    plain = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
    plain = os.fspath(plain) if isinstance(plain, os.PathLike) else plain
    plain = str.__str__(plain) if isinstance(plain, str) else plain
    for choice in typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,):
        if typing.get_origin(choice) is tuple and isinstance(plain, list | tuple):
            item, _ = typing.get_args(choice)
            return tuple(as_type(one, item, f"{name}[{number}]") for number, one in enumerate(plain))
        if _fits(plain, choice):
            return _path(plain) if choice is Path else plain
    raise BertjaxError(f"{name}: expected {describe_type(kind)}, got {reprlib.repr(value)}")


def _path(name: str) -> Path:
    return user_path(name) if url_of(name) is None else Path(name)


def _fits(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal or kind is Path:
        return isinstance(value, str) and (value != "" if kind is Path else value in typing.get_args(kind))
    if isinstance(value, bool):
        return kind is bool
    if typing.get_origin(kind) is tuple:
        return False
    return isinstance(value, int | float if kind is float else kind)


def require_layers(key: str, layers: tuple[int, ...] | None) -> None:
    """Raises BertjaxError unless the key names encoder layers, each once and in ascending order, or nothing."""
    require(
        layers is None or (len(layers) > 0 and layers[0] >= 0 and layers == tuple(sorted(set(layers)))),
        f"{key}={list(layers or ())} does not name layers from 0 on, each once and in their order; give some such as "
        "[0, 2, 4]",
    )


def require_types(section: object, prefix: str = "") -> None:
    """Requires that each value of a section is of its key's type, and turns numpy's into Python's.

    Args:
      section: a frozen dataclass.
      prefix: as of `require_at_least`.
    """
    for name, kind in typing.get_type_hints(type(section)).items():
        key = f"{prefix}.{name}" if prefix else name
        object.__setattr__(section, name, as_type(getattr(section, name), kind, key))


def describe_type(kind: Any) -> str:
    """Says what a key of a type takes, such as "a whole number or null"."""
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        return ("one of " if len(choices) > 1 else "") + ", ".join(choices)
    if typing.get_origin(kind) is tuple:
        return f"[{describe_type(typing.get_args(kind)[0])}, ...]"
    if typing.get_args(kind):
        return " or ".join(describe_type(choice) for choice in typing.get_args(kind))
    return "null" if kind is type(None) else _NAMES.get(kind, f"a {kind.__name__}")
