"""Recipe files: found by name or path, read strictly, with keys of older versions under their names of today."""

import logging
import os
import reprlib
import typing
from pathlib import Path

import yaml

from bertjax.config.keys import RENAMED, SECTIONS, TYPES, describe_type, describe_unknown, takes_keys
from bertjax.errors import BertjaxError

_SHIPPED = Path(__file__).parents[1] / "configs"
logger = logging.getLogger(__name__)


def recipe_names() -> list[str]:
    """Names of the recipes that come with bertjax."""
    return sorted(file.stem for file in _SHIPPED.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """Returns the path of a recipe.

    Args:
      name: the name of one that comes with bertjax, such as "textbook"; or a path, which has a folder or a suffix in
        it, or is that of a file.

    Raises:
      BertjaxError: there is no recipe of that name.
    """
    if os.sep in name or Path(name).suffix or os.path.isfile(name):
        return Path(name)
    if name not in recipe_names():
        raise BertjaxError(f"there is no recipe {name!r}; give a file, or one of {', '.join(recipe_names())}")
    return _SHIPPED / f"{name}.yaml"


def read_recipe(path: Path) -> str:
    """Returns the YAML text of a recipe, with each renamed key under the name of today.

    Raises:
      BertjaxError: it cannot be read or is no YAML, has an unknown key, or a key of both its names; or a value is not a
        single one, which the parser would say without naming the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        recipe = yaml.safe_load(text)
    except OSError as error:
        raise BertjaxError(f"config {path} cannot be read: {error.strerror}; give {_examples()}") from error
    except UnicodeDecodeError as error:
        raise BertjaxError(f"config {path} is not UTF-8 text; give {_examples()}") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:  # it raises all of them
        raise BertjaxError(f"config {path} is not YAML: {' '.join(str(error).split())}; mend that line") from error
    if not isinstance(recipe, dict) or not recipe:
        raise BertjaxError(f"config {path} holds no keys; give lines such as 'seed: 1', or {_examples()}")
    old = []
    for name, value in recipe.items():
        if name not in SECTIONS and name not in TYPES:
            raise BertjaxError(f"config {path}: {describe_unknown(str(name))}")
        if name in SECTIONS and not isinstance(value, dict):
            raise BertjaxError(f"config {path}: {takes_keys(name)}")
        for key, item in value.items() if name in SECTIONS else ((None, value),):
            dotted = f"{name}.{key}" if key is not None else name
            if dotted in RENAMED:
                old.append(dotted)
                if RENAMED[dotted].split(".")[1] in value:
                    raise BertjaxError(f"config {path} has both {dotted} and {RENAMED[dotted]}, its name now; drop one")
            kind = TYPES.get(RENAMED.get(dotted, dotted))
            if isinstance(item, dict | list | set) and kind is not None:
                raise BertjaxError(f"{dotted}: expected {describe_type(kind)}, got {reprlib.repr(item)}")
            if item is None and kind is not None and type(None) not in typing.get_args(kind):
                raise BertjaxError(f"{dotted}: expected {describe_type(kind)}, got nothing")
    return _with_todays_keys(text, path) if old else text


def _with_todays_keys(text: str, path: Path) -> str:
    """Renames keys in the tree of nodes, where each value still is as it was written."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    for section, keys in root.value:
        for key, _ in keys.value if isinstance(keys, yaml.MappingNode) else ():
            if new := RENAMED.get(f"{section.value}.{key.value}"):
                logger.debug("config %s: %s.%s is now %s", path, section.value, key.value, new)
                key.value = new.split(".")[1]
    return yaml.serialize(root, Dumper=yaml.SafeDumper)


def _examples() -> str:
    return f"a recipe such as {', '.join(recipe_names())}"
