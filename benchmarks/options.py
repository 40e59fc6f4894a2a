"""Options that all benchmarks have, and files that they write."""

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertjax.config import Config
from bertjax.config.parser import config_parser, parse_config
from bertjax.errors import BertjaxError

FINETUNING_PEERS = ("torch", "transformers", "accelerate")  # packages


def make_parser(name: str, its_own: str, description: str, recipe: str) -> Any:
    """Returns a parser of a recipe's keys and of `--json`, to which a benchmark adds its own options.

    Args:
      its_own: these options, as the usage line has them.
      recipe: the name of the one that is taken where no --config is given.
    """
    its_own = f"{its_own} " if its_own else ""
    parser = config_parser(
        f"python -m benchmarks {name}",
        usage=f"python -m benchmarks {name} {its_own}[--json FILE] [--config RECIPE] [--KEY VALUE ...]",
        description=f"{description} Without --config, the recipe is {recipe}.",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    return parser


def parse(
    parser: Any, argv: Sequence[str], recipe: str, settings: Sequence[str] = (), *, new: Sequence[str] = ("json",)
) -> tuple[Config, Any]:
    """Returns the recipe and the options that the arguments ask for.

    Args:
      recipe: the name of the one that is taken where no --config is given.
      settings: what is changed of that recipe, unless the arguments say otherwise.
      new: options that name a file to be written, which must not exist yet.

    Raises:
      BertjaxError: an argument or a file's name that cannot be used.
    """
    if not any(word.partition("=")[0] in ("--config", "-h", "--help") for word in argv):
        argv = ["--config", recipe, *settings, *argv]
    config, options = parse_config(parser, argv)
    for option in new:
        if path := getattr(options, option):
            check_new(f"--{option}", Path(path))
    return config, options


def check_new(option: str, path: Path) -> None:
    """Raises BertjaxError where a file cannot be written without harm."""
    if path.exists():
        raise BertjaxError(f"{option} {path} exists and is left as it is; give another name")
    check_folder(option, path)


def check_folder(option: str, path: Path) -> None:
    """Raises BertjaxError where a file has no folder to be written in."""
    if not path.parent.is_dir():
        raise BertjaxError(f"{option} {path}: there is no folder {path.parent}; make it first")


def check_plot(path: str | None) -> None:
    """Raises BertjaxError where a picture's name has another ending than .png."""
    if path and not path.endswith(".png"):
        raise BertjaxError(f"--plot {path} does not end in .png; give a FILE.png")


def check_seeds(seeds: int, first: int) -> None:
    """Raises BertjaxError where there cannot be so many seeds from the first on."""
    if not 1 <= seeds <= 2**32 - first:
        raise BertjaxError(f"--seeds {seeds} is impossible; give 1 or more")


def check_packages(packages: Sequence[str]) -> None:
    """Raises BertjaxError where a package that --peers needs is missing."""
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise BertjaxError(f"--peers needs {', '.join(missing)}; pip install 'bertjax[peers]'")


def write_json(report: dict[str, Any], path: str | None) -> None:
    """Writes a report to the path of `--json`, if there is one."""
    if path:
        with writing("--json", path):
            Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def writing(option: str, path: str) -> Iterator[None]:
    """Turns what the system says of a file that cannot be written into a BertjaxError."""
    try:
        yield
    except OSError as error:
        raise BertjaxError(f"cannot write {option} {path}: {error.strerror}; give another place") from error


def say(line: str) -> None:
    """Tells on standard error how far a benchmark is."""
    print(line, file=sys.stderr, flush=True)
