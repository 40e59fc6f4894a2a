"""From a recipe and overrides to a `Config`, strictly, and back."""

import dataclasses
import functools
import reprlib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bertjax.config.checks import as_type
from bertjax.config.config import Config
from bertjax.config.files import find_recipe as find_recipe
from bertjax.config.files import read_recipe, shipped_recipe
from bertjax.config.files import recipe_names as recipe_names
from bertjax.config.keys import TYPES, is_text
from bertjax.config.keys import flat as flat
from bertjax.config.parser import config_parser, parse_config
from bertjax.errors import BertjaxError
from bertjax.storage.atomic import atomic_write

_shared_parser = functools.cache(config_parser)  # to make one takes twice as long as to read a recipe by it


def load_config(recipe: str | Path, overrides: str | Sequence[str] = ()) -> Config:
    """Reads a recipe.

    Args:
      recipe: the name of one that comes with bertjax, such as "textbook", or the path of a YAML file.
      overrides: what to have instead of the recipe's values, such as `["train.steps=200"]`, or one of them alone.

    Raises:
      BertjaxError: no such recipe, an unknown key, a wrong type or an impossible value.
    """
    name: str = as_type(recipe, str, "recipe")
    given = []
    for override in [overrides] if isinstance(overrides, str) else as_type(overrides, Sequence, "overrides"):
        key, equals, value = override.partition("=") if isinstance(override, str) else ("", "", "")
        if not equals:
            raise BertjaxError(f"override {reprlib.repr(override)} is not of the form key=value, as in train.steps=200")
        given.append(f"--{key.strip().lstrip('-')}={value.strip()}")
    args = (f"--config={name}", *given)
    try:
        found = find_recipe(name).stat()
    except OSError:
        return parse_config(_shared_parser(), args)[0]  # which says what is wrong
    return _parsed(args, (found.st_ino, found.st_mtime_ns, found.st_size))


# A run's configuration is asked for several times, and takes a tenth of a second to parse.
@functools.lru_cache(maxsize=100)
def _parsed(args: tuple[str, ...], version: tuple[int, ...]) -> Config:
    """Returns what the arguments say, which name a file that is in this version."""
    return parse_config(_shared_parser(), args)[0]


@functools.cache
def shipped_settings() -> dict[str, dict[str, Any]]:
    """The settings of each recipe that comes with bertjax, by its name: `flat` of what `load_config` returns.

    Those need no checks, without which all are read in a tenth of the time.
    """
    defaults = flat(Config())
    shipped = {name: yaml.safe_load(read_recipe(shipped_recipe(name), "bertjax")) for name in recipe_names()}
    return {
        name: defaults | {key: _as_kept(TYPES[key], value) for key, value in settings.items()}
        for name, settings in shipped.items()
    }


def _as_kept(kind: Any, value: Any) -> Any:
    """The value of a key as a `Config` has it; in YAML 1e-4, which has no point, is text."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and int in typing.get_args(kind) and value.isdecimal():  # a number, or a word
        return int(value)
    return float(value) if isinstance(value, str) and not is_text(kind) else value


def save_config(config: Config, path: Path) -> None:
    """Writes the configuration as YAML that `load_config` reads back to an equal one."""
    with atomic_write(path) as file:
        yaml.safe_dump(dataclasses.asdict(config), file, sort_keys=False)
