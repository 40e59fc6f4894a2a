"""What tests of the command line share: a command's outcome, and what is expected of one that is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bertjax.config import Config
from bertjax.config.recipes import flat


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


def options(config: Config) -> list[str]:
    """A configuration as it is typed: a recipe, and every key."""
    return ["--config=tiny"] + [
        f"--{key}={'null' if value is None else str(value)}" for key, value in flat(config).items()
    ]


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Everything in a folder but its lock, with size and time of change."""
    there = [path for path in (folder, *folder.rglob("*")) if path.name != "lock"]
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in there}


def assert_refused(outcome: Outcome, *parts: str) -> None:
    """Exit code 2 and one line that holds these parts, on stderr."""
    assert outcome.code == 2
    assert outcome.err.startswith("bertjax: ") and outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    assert [part for part in parts if part not in outcome.err] == []
