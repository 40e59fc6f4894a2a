"""Keys of a configuration in dotted form, such as train.steps, and how messages speak of them."""

import dataclasses
import difflib
import re
import typing
from typing import Any

from bertjax.config.checks import require
from bertjax.config.config import Config

SECTIONS: dict[str, Any] = {
    name: kind for name, kind in typing.get_type_hints(Config).items() if dataclasses.is_dataclass(kind)
}
"""Dataclass of each section, by its name in a recipe."""

TYPES: dict[str, Any] = {name: kind for name, kind in typing.get_type_hints(Config).items() if name not in SECTIONS} | {
    f"{name}.{key}": kind for name, part in SECTIONS.items() for key, kind in typing.get_type_hints(part).items()
}
"""Type of every key, by its dotted form."""

RENAMED = {
    "data.mlm_rate": "data.mlm_probability",
    "data.mlm_rate_end": "data.mlm_probability_end",
    "eval.mlm_rate": "eval.mlm_probability",
    "train.accumulate": "train.gradient_accumulation_steps",
    "model.tied_head": "model.tie_word_embeddings",
}
"""Today's name of every key that once had another. Files with the old names are read; the command line refuses them."""


def flat(config: Config) -> dict[str, Any]:
    """Every key in dotted form with its value: `{"seed": 0, "data.source": "wikitext-2", ...}`."""
    rows: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        rows |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return rows


def describe_unknown(key: str, given: str | None = None, *, command: str = "bertjax pretrain") -> str:
    """Says that there is no such key, and the one to give instead.

    Args:
      key: in dotted form.
      given: what was typed, such as "option --train.stepss"; by default "key train.stepss".
      command: the one whose help tells more.
    """
    if key in RENAMED:
        return f"{key} is now {RENAMED[key]}; give that"
    known = {name.split(".")[-1]: name for name in (*TYPES, *SECTIONS)}
    known["lr"] = "optim.learning_rate"  # as many say
    near = difflib.get_close_matches(key.split(".")[-1], known, n=1, cutoff=0.7)
    instead = f"did you mean {known[near[0]]}?" if near else f"'{command} --help' lists every key"
    return f"there is no {given or f'key {key}'}; {instead}"


def takes_keys(section: str) -> str:
    """Says that a section is not a single value."""
    return f"{section} is a section and takes keys, such as {section}.{dataclasses.fields(SECTIONS[section])[0].name}"


def is_text(kind: Any) -> bool:
    """Returns whether a type's values are texts, all of them or a few."""
    return kind is str or any(isinstance(choice, str) or is_text(choice) for choice in typing.get_args(kind))


def is_list(kind: Any) -> bool:
    """Returns whether a type's values are lists, all of them or some."""
    return typing.get_origin(kind) is tuple or any(is_list(choice) for choice in typing.get_args(kind))


def may_be_null(kind: Any) -> bool:
    """Returns whether null is one of a type's values."""
    return type(None) in typing.get_args(kind)


def check_number(key: str, text: str) -> None:
    """Raises BertjaxError where a number is another one to YAML than to people, if the key takes numbers.

    Args:
      text: as it is written.
    """
    if not is_text(TYPES.get(key, str)):
        require(
            not re.fullmatch(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-9]+)+(\.[0-9_]*)?)", text),
            f"{key}={text} is another number in YAML, where 010 is 8 and 1:30 is 90; "
            "write it with no 0 in front, and without ':'",
        )
