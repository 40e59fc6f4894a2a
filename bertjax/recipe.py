"""From a YAML recipe and overrides to a `Config`, strictly, and back."""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from bertjax.config import Config
from bertjax.errors import BertjaxError

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)

_PARTS = {field.name: field.type for field in dataclasses.fields(Config) if dataclasses.is_dataclass(field.type)}


def config_parser(prog: str = "bertjax", **texts: Any) -> jsonargparse.ArgumentParser:
    """A parser of `--config FILE` and one dotted option for every key of `Config`.

    Args:
      texts: argparse's `usage`, `description`, `epilog`.
    """
    parser = jsonargparse.ArgumentParser(prog=prog, exit_on_error=False, allow_abbrev=False, **texts)
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
    try:
        namespace = parser.parse_args(list(args))
    except jsonargparse.ArgumentError as error:
        raise BertjaxError(_one_line(str(error))) from error
    except UnicodeDecodeError as error:
        raise BertjaxError(f"config: the file is not UTF-8 text ({error.reason}); give a YAML recipe") from error
    return _build(namespace), namespace


def _build(namespace: jsonargparse.Namespace) -> Config:
    values = {field.name: namespace[field.name] for field in dataclasses.fields(Config)}
    for name, part in _PARTS.items():
        if not isinstance(values[name], jsonargparse.Namespace):
            raise BertjaxError(f"{name}={values[name]} is one value; this part takes keys, as in {name}.KEY")
        values[name] = part(**values[name].as_dict())  # type: ignore[operator]
    return Config(**values)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The recipe in a YAML file, with overrides such as `"train.steps=200"`.

    Raises:
      BertjaxError: no such file, an unknown key, a wrong type or an impossible value.
    """
    for override in overrides:
        if "=" not in override:
            raise BertjaxError(f"override {override!r} is not of the form key=value, as in train.steps=200")
    config, _ = parse_config(config_parser(), ["--config", str(path), *(f"--{item}" for item in overrides)])
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


# How jsonargparse words a mistake, and how we do: on one line, in the reader's terms.
_WORDINGS = (
    (r"^Parser key \"(.+?)\":", r"\1:"),
    (
        r"Does not validate against any of the Union subtypes .*Given value: (.*)",
        r"wrong type. Got value: \1",
    ),
    (r"Expected a <class 'int'>\.", "expected a whole number."),
    (r"Expected a <class 'float'>\.", "expected a number."),
    (r"Expected a <class 'str'>\.", "expected text."),
    (r"Expected a <class 'bool'>\.", "expected true or false."),
    (r"Expected a typing\.Literal\[(.+?)\]\.", r"expected one of \1."),
    (
        r"^Unexpected config:.*",
        "config: the file holds no keys; give a YAML recipe with lines such as 'seed: 1'",
    ),
    (r"Unable to load config ('.*?').*", r"got \1, but this part takes keys"),
)
_UNKNOWN_KEY = r"does not accept option '(.+?)'|Option '(.+?)' is not accepted|[Uu]nrecognized arguments: (?:--)?(\S+)"


def _one_line(message: str) -> str:
    message = " ".join(message.split())
    for theirs, ours in _WORDINGS:
        message = re.sub(theirs, ours, message)
    if unknown := re.search(_UNKNOWN_KEY, message):
        asked = next(filter(None, unknown.groups())).split("=")[0]
        known = {name: key for key in flat(Config()) for name in (key, key.split(".")[-1])}
        near = difflib.get_close_matches(asked, known, n=1)
        message += f"; did you mean {known[near[0]]}?" if near else "; 'bertjax pretrain --help' lists every key"
    return message
