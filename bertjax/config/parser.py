"""The command line's options, one for every key of `Config`, and what is said of mistakes in them."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jsonargparse
import yaml

from bertjax.config.checks import describe_type
from bertjax.config.config import Config
from bertjax.config.files import find_recipe, read_recipe, recipe_names
from bertjax.config.keys import SECTIONS, TYPES, check_number, describe_unknown, flat, takes_keys
from bertjax.errors import BertjaxError

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
_load_yaml = jsonargparse.get_loader("yaml")


def _load(text: str) -> Any:
    """Returns a value of YAML; text in which YAML sees nothing, such as "#1 String", a comment, stays text."""
    value = _load_yaml(text)
    return text if value is None and text.strip() not in ("", "~", "null", "Null", "NULL") else value


jsonargparse.set_loader("bertjax", _load, (yaml.YAMLError,))


def config_parser(prog: str = "bertjax pretrain", **texts: Any) -> jsonargparse.ArgumentParser:
    """Makes a parser of `--config RECIPE` and one dotted option for every key of `Config`.

    Args:
      prog: the command as it is typed.
      texts: argparse's `usage`, `description`, `epilog`.
    """
    parser = jsonargparse.ArgumentParser(
        prog=prog, exit_on_error=False, allow_abbrev=False, print_config=None, parser_mode="bertjax", **texts
    )
    recipes = f"name of a recipe ({', '.join(recipe_names())}), or path of a YAML file"
    parser.add_argument("--config", action="config", metavar="RECIPE", help=recipes)
    parser.add_class_arguments(Config)
    for action in parser._actions:  # a section is given key by key, or in the recipe, never as a file of its own
        if action.dest in SECTIONS:
            action.help = jsonargparse.SUPPRESS
    return parser


def parse_config(parser: jsonargparse.ArgumentParser, args: Sequence[str]) -> tuple[Config, Any]:
    """Returns the `Config` that the arguments ask for, and the parser's whole namespace.

    Raises:
      BertjaxError: an unknown key, a wrong type or an impossible value, named with its remedy.
    """
    try:
        # Every key has its default in `Config`; to fill them in here takes jsonargparse nine times as long.
        namespace = parser.parse_args(_as_meant(args, parser.prog), defaults=False)
    except jsonargparse.ArgumentError as error:
        raise BertjaxError(_in_our_words(" ".join(str(error).split()), parser.prog)) from error
    except RecursionError as error:
        raise BertjaxError("a value is nested too deeply; every key takes a single value") from error
    except OverflowError as error:  # a whole number where a float is wanted
        raise BertjaxError("a number has more than 308 digits; no key takes one so large") from error
    values = {field.name: namespace[field.name] for field in dataclasses.fields(Config) if field.name in namespace}
    for name in SECTIONS.keys() & values.keys():
        keys = values[name].as_dict() if isinstance(values[name], jsonargparse.Namespace) else {}
        if "__path__" in keys or not keys:
            raise BertjaxError(takes_keys(name))
        values[name] = SECTIONS[name](**keys)
    config = Config(**values)
    for action in parser._actions:  # the command's own
        of_config = action.dest in TYPES or action.dest in SECTIONS
        if not of_config and action.dest not in namespace and action.default is not jsonargparse.SUPPRESS:
            namespace[action.dest] = action.default
    for key, value in flat(config).items():
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            raise BertjaxError(f"{key}={value!r} holds a NUL or half a character, as no name may; give UTF-8 text")
    return config, namespace


def typed_keys(args: Sequence[str]) -> list[str]:
    """Returns the keys that the arguments give by themselves, in no recipe."""
    options = (word.removeprefix("--").partition("=")[0] for word in args if word.startswith("--"))
    return [option for option in options if option in TYPES]


def _as_meant(args: Sequence[str], command: str) -> list[str]:
    """Checks numbers, and puts the text of each recipe in place of its name or path; jsonargparse takes either."""
    read: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--config" and (name := next(words, None)) is not None:
            word = f"--config={name}"
        option, _, value = word.partition("=") if "=" in word or not read else (read[-1], "", word)
        check_number(option.removeprefix("--"), value)
        read.append(f"--config={read_recipe(find_recipe(value), command)}" if word.startswith("--config=") else word)
    # Recipes first, or they would win over what is typed before them.
    return sorted(read, key=lambda word: not word.startswith("--config="))


def _in_our_words(message: str, command: str) -> str:
    """Returns jsonargparse's message with what was needed in the reader's terms, and the remedy."""
    if wrong := re.match(r"Parser key \"(.+?)\":.*(?:Got|Given) value: ?(.*)", message):
        key, value = wrong.groups()
        if key in TYPES:
            return f"{key}: expected {describe_type(TYPES[key])}, got {value or 'nothing'}"
        if "<class 'int'>" in message:  # an option of one command
            return f"--{key}: expected {describe_type(int)}, got {value or 'nothing'}"
    if (whole := re.match(r"Parser key \"(\w+)\": Unable to load config", message)) and whole[1] in SECTIONS:
        return takes_keys(whole[1])
    if unknown := re.search(r"Group '(.+?)' does not accept option '(.+?)'", message):
        return describe_unknown(".".join(unknown.groups()), command=command)
    if unknown := re.search(r"[Uu]nrecognized arguments: (\S+)", message):
        return describe_unknown(unknown[1].lstrip("-").split("=")[0], f"option {unknown[1]}", command=command)
    return message
