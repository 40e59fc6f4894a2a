"""From a YAML recipe and overrides to a `Config`, strictly, and back."""

import dataclasses
import difflib
import re
import reprlib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from bertjax.config import Config
from bertjax.errors import BertjaxError

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)

EXAMPLE = "configs/textbook.yaml"
_PARTS: dict[str, Any] = {
    name: kind for name, kind in typing.get_type_hints(Config).items() if dataclasses.is_dataclass(kind)
}
_TYPES: dict[str, Any] = {name: kind for name, kind in typing.get_type_hints(Config).items() if name not in _PARTS} | {
    f"{name}.{key}": kind for name, part in _PARTS.items() for key, kind in typing.get_type_hints(part).items()
}


def config_parser(prog: str = "bertjax", **texts: Any) -> jsonargparse.ArgumentParser:
    """A parser of `--config FILE` and one dotted option for every key of `Config`.

    Args:
      texts: argparse's `usage`, `description`, `epilog`.
    """
    parser = jsonargparse.ArgumentParser(prog=prog, exit_on_error=False, allow_abbrev=False, print_config=None, **texts)
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML recipe, such as those in configs/")
    parser.add_class_arguments(Config)
    for action in parser._actions:  # a part is given key by key, or in the recipe, never as a file of its own
        if action.dest in _PARTS:
            action.help = jsonargparse.SUPPRESS
    return parser


def parse_config(parser: jsonargparse.ArgumentParser, args: Sequence[str]) -> tuple[Config, Any]:
    """The `Config` that the arguments ask for, and the parser's whole namespace.

    Raises:
      BertjaxError: an unknown key, a wrong type or an impossible value, named with its remedy.
    """
    args = list(args)
    for given, value in zip(args, [*args[1:], ""], strict=True):
        if given == "--config" or given.startswith("--config="):
            _check_recipe(value if given == "--config" else given.removeprefix("--config="))
    try:
        namespace = parser.parse_args(args)
    except jsonargparse.ArgumentError as error:
        raise BertjaxError(_in_our_words(" ".join(str(error).split()))) from error
    except RecursionError as error:
        raise BertjaxError("a value is nested too deeply; every key takes a single value") from error
    except OverflowError as error:  # a whole number where a float is wanted
        raise BertjaxError("a number has more than 308 digits; no key takes one so large") from error
    values = {field.name: namespace[field.name] for field in dataclasses.fields(Config)}
    for name, part in _PARTS.items():
        keys = values[name].as_dict() if isinstance(values[name], jsonargparse.Namespace) else {}
        if "__path__" in keys or not keys:
            raise BertjaxError(_takes_keys(name))
        values[name] = part(**keys)
    config = Config(**values)
    for key, value in flat(config).items():
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            raise BertjaxError(f"{key}={value!r} holds a NUL or half a character, as no name may; give UTF-8 text")
    return config, namespace


def _check_recipe(path: str) -> None:
    """What the parser would say of a recipe without naming the file, or not at all."""
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BertjaxError(
            f"config {path} cannot be read: {error.strerror}; give a recipe such as {EXAMPLE}"
        ) from error
    except UnicodeDecodeError as error:
        raise BertjaxError(f"config {path} is not UTF-8 text; give a recipe such as {EXAMPLE}") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:  # it raises all of them
        reason = " ".join(str(error).split())
        raise BertjaxError(f"config {path} is not YAML: {reason}; compare {EXAMPLE}") from error
    if not isinstance(recipe, dict) or not recipe:
        raise BertjaxError(f"config {path} holds no keys; give lines such as 'seed: 1', as in {EXAMPLE}")
    for name, value in recipe.items():
        if name not in _PARTS and name not in _TYPES:
            raise BertjaxError(f"config {path}: there is no key {name}{_nearest(str(name))}")
        if name in _PARTS and not isinstance(value, dict):
            raise BertjaxError(f"config {path}: {_takes_keys(name)}")
        for key, item in value.items() if name in _PARTS else ((None, value),):
            dotted = f"{name}.{key}" if key is not None else name
            if isinstance(item, dict | list | set) and dotted in _TYPES:
                raise BertjaxError(f"{dotted}: expected {_words(_TYPES[dotted])}, got {reprlib.repr(item)}")
            if item is None and dotted in _TYPES and type(None) not in typing.get_args(_TYPES[dotted]):
                raise BertjaxError(f"{dotted}: expected {_words(_TYPES[dotted])}, got nothing")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The recipe in a YAML file, with overrides such as `"train.steps=200"`.

    Raises:
      BertjaxError: no such file, an unknown key, a wrong type or an impossible value.
    """
    for override in overrides:
        if "=" not in override:
            raise BertjaxError(f"override {override!r} is not of the form key=value, as in train.steps=200")
    config, _ = parse_config(
        config_parser(), ["--config", str(path), *(f"--{item.strip().lstrip('-')}" for item in overrides)]
    )
    return config


def save_config(config: Config, path: Path) -> None:
    """Writes the configuration as YAML that `load_config` reads back to an equal one."""
    path.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False), encoding="utf-8")


def flat(config: Config) -> dict[str, Any]:
    """Every key in dotted form: `{"seed": 0, "data.source": "wikitext-2", ...}`."""
    rows: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        rows |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return rows


def _in_our_words(message: str) -> str:
    """jsonargparse's message, with what was needed said in the reader's terms and the nearest known key."""
    if wrong := re.match(r"Parser key \"(.+?)\":.*?(?:Got|Given) value: ?(.*)", message):
        key, value = wrong.groups()
        if key in _TYPES:
            return f"{key}: expected {_words(_TYPES[key])}, got {value or 'nothing'}"
    if (whole := re.match(r"Parser key \"(\w+)\": Unable to load config", message)) and whole[1] in _PARTS:
        return _takes_keys(whole[1])
    if unknown := re.search(r"Group '(.+?)' does not accept option '(.+?)'", message):
        key = ".".join(unknown.groups())
        return f"there is no key {key}{_nearest(key)}"
    if unknown := re.search(r"[Uu]nrecognized arguments: (\S+)", message):
        return f"there is no option {unknown[1]}{_nearest(unknown[1].lstrip('-').split('=')[0])}"
    return message


def _takes_keys(part: str) -> str:
    return f"{part} is a part and takes keys, such as {part}.{dataclasses.fields(_PARTS[part])[0].name}"


def _nearest(key: str) -> str:
    known = {name.split(".")[-1]: name for name in (*_TYPES, *_PARTS)}
    near = difflib.get_close_matches(key.split(".")[-1], known, n=1)
    return f"; did you mean {known[near[0]]}?" if near else "; 'bertjax pretrain --help' lists every key"


def _words(kind: Any) -> str:
    """A type as a reader would say it."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    if typing.get_args(kind):
        return " or ".join(_words(choice) for choice in typing.get_args(kind))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "null")
