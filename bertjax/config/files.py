"""Recipe files: found by name or path, and read strictly.

YAML takes the last of two equal keys, 010 for 8 and no for false. So a recipe is looked at as it is written, before
YAML makes values of it.
"""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from bertjax.config.checks import describe_type
from bertjax.config.keys import (
    RENAMED,
    SECTIONS,
    TYPES,
    check_number,
    describe_unknown,
    is_list,
    is_text,
    may_be_null,
    takes_keys,
)
from bertjax.errors import BertjaxError
from bertjax.storage.fetch import fetched
from bertjax.storage.paths import url_of, user_path

_SHIPPED = Path(__file__).parents[1] / "configs"
_MOST_BYTES, _DEEPEST = 1 << 16, 32
_LONG_NUMBER = re.compile(r"[-+\d_:.]{309,}")
_TAG = "tag:yaml.org,2002:"
logger = logging.getLogger(__name__)


def recipe_names() -> list[str]:
    """Names of the recipes that come with bertjax; those of a folder have its name before them, as in glue/cola."""
    return sorted(file.relative_to(_SHIPPED).with_suffix("").as_posix() for file in _SHIPPED.rglob("*.yaml"))


def shipped_recipe(name: str) -> Path:
    """Returns the path of a recipe that comes with bertjax, one of `recipe_names`."""
    return _SHIPPED / f"{name}.yaml"


def find_recipe(name: str) -> Path:
    """Returns the path of a recipe.

    Args:
      name: the name of one that comes with bertjax, such as "textbook" or "glue/cola"; or else a path, which has a
        folder or a suffix in it, or is that of a file.

    Raises:
      BertjaxError: there is no recipe of that name.
    """
    if url_of(name) is not None:
        return fetched(name)
    names = recipe_names()
    if name in names and not os.path.isfile(name):
        return shipped_recipe(name)
    if os.sep in name or Path(name).suffix or os.path.isfile(name):
        return user_path(name)
    raise BertjaxError(f"there is no recipe {name!r}; give a file, or one of {', '.join(names)}")


def read_recipe(path: Path, command: str) -> str:
    """Returns the YAML text of a recipe in which each key has its name of today, and each text is quoted.

    Args:
      command: the one that it is read for, whose help tells every key.

    Raises:
      BertjaxError: it cannot be read or is no YAML, has an unknown key, or one twice, be it under its old name; or a
        value is not a single one, or not the one that is written there.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES + 1).decode("utf-8-sig")
        if len(text) > _MOST_BYTES:
            raise BertjaxError(f"config {path} has more than {_MOST_BYTES:,} bytes; a recipe has a thousand or two")
        _check_bounded(text)
        yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise BertjaxError(f"config {path} cannot be read: {error.strerror}; give {_examples()}") from error
    except UnicodeDecodeError as error:
        raise BertjaxError(f"config {path} is not UTF-8 text; give {_examples()}") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:  # it raises all of them
        raise BertjaxError(f"config {path} is not YAML: {' '.join(str(error).split())}; mend that line") from error
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise BertjaxError(f"config {path} holds no keys; give lines such as 'seed: 1', or {_examples()}")
    found: dict[str, tuple[str, yaml.Node]] = {}  # as it is written
    values: list[tuple[yaml.Node, yaml.Node]] = []
    for written, key, value in _keys(root):
        name = RENAMED.get(written, written)
        if name not in TYPES and name not in SECTIONS:
            raise BertjaxError(f"config {path}: {describe_unknown(name, command=command)}")
        if name in found:
            raise BertjaxError(f"config {path} {_twice(name, *found[name], written, key)}; drop one")
        found[name] = written, key
        if name != written:
            logger.debug("config %s: %s is now %s", path, written, name)
        if name in TYPES:
            _check_value(written, name, value, text)
            values.append((yaml.ScalarNode(f"{_TAG}str", name), value))
        elif not isinstance(value, yaml.MappingNode):
            raise BertjaxError(f"config {path}: {takes_keys(name)}")
    root.value = values
    return yaml.serialize(root, Dumper=yaml.SafeDumper)


def _check_bounded(text: str) -> None:
    """Raises ValueError where values would multiply, contain themselves or take time beyond reason to be made."""
    collections, depth = set(), 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError("a value is nested too deeply; every key takes a single value")
        if isinstance(event, yaml.CollectionStartEvent) and event.anchor:
            collections.add(event.anchor)
        if isinstance(event, yaml.AliasEvent) and event.anchor in collections:
            raise ValueError(f"*{event.anchor} repeats several values at once, which no recipe does; write them out")
        if isinstance(event, yaml.ScalarEvent) and event.style is None and _LONG_NUMBER.fullmatch(event.value):
            raise ValueError("a number has more than 308 digits; no key takes one so large")


def _keys(root: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yields each key as it is written, dotted, with both nodes; those of a section after the section itself."""
    for key, value in root.value:
        yield str(key.value), key, value
        if key.value in SECTIONS and isinstance(value, yaml.MappingNode):
            yield from ((f"{key.value}.{inner.value}", inner, item) for inner, item in value.value)


def _twice(name: str, first: str, first_key: yaml.Node, again: str, again_key: yaml.Node) -> str:
    if first != again:
        old = first if first != name else again
        return f"has both {old} and {name}, its name now"
    lines = sorted({key.start_mark.line + 1 for key in (first_key, again_key)})
    return f"gives {name} twice, in line {' and line '.join(map(str, lines))}"


def _check_value(written: str, name: str, value: yaml.Node, text: str) -> None:
    """Quotes text, so that it stays as it is written, and complains of what is not a value, or list, the key takes."""
    kind = TYPES[name]
    if isinstance(value, yaml.SequenceNode) and is_list(kind):
        for item in value.value:
            if not isinstance(item, yaml.ScalarNode) or item.tag == f"{_TAG}null":
                given = text[value.start_mark.index : value.end_mark.index]
                raise BertjaxError(f"{written}: expected {describe_type(kind)}, got {' '.join(given.split())}")
            _check_value(written, name, item, text)
        return
    if not isinstance(value, yaml.ScalarNode):
        given = text[value.start_mark.index : value.end_mark.index]
        raise BertjaxError(f"{written}: expected {describe_type(kind)}, got {given}")
    if value.tag == f"{_TAG}null":
        if not may_be_null(kind):
            raise BertjaxError(f"{written}: expected {describe_type(kind)}, got nothing")
        value.value = "null"
    elif is_text(kind):
        value.tag, value.style = f"{_TAG}str", value.style or "'"
    elif value.style is None:
        check_number(name, value.value)


def _examples() -> str:
    return f"a recipe such as {', '.join(recipe_names())}"
