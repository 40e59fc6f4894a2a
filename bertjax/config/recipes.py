"""From a recipe and overrides to a `Config`, strictly, and back."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import yaml

from bertjax.config.config import Config
from bertjax.config.files import find_recipe as find_recipe
from bertjax.config.files import recipe_names as recipe_names
from bertjax.config.keys import flat as flat
from bertjax.config.parser import config_parser, parse_config
from bertjax.errors import BertjaxError
from bertjax.storage.atomic import atomic_write

_shared_parser = functools.cache(config_parser)  # to make one takes twice as long as to read a recipe by it


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a recipe.

    Args:
      recipe: the name of one that comes with bertjax, such as "textbook", or the path of a YAML file.
      overrides: what to have instead of the recipe's values, such as `["train.steps=200"]`.

    Raises:
      BertjaxError: no such recipe, an unknown key, a wrong type or an impossible value.
    """
    for override in overrides:
        if "=" not in override:
            raise BertjaxError(f"override {override!r} is not of the form key=value, as in train.steps=200")
    config, _ = parse_config(
        _shared_parser(), [f"--config={recipe}", *(f"--{item.strip().lstrip('-')}" for item in overrides)]
    )
    return config


def save_config(config: Config, path: Path) -> None:
    """Writes the configuration as YAML that `load_config` reads back to an equal one."""
    with atomic_write(path) as file:
        yaml.safe_dump(dataclasses.asdict(config), file, sort_keys=False)
