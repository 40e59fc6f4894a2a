"""Contenders in processes of their own, which take turns, and summaries of their runs."""

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.errors import BertjaxError, ExitCode
from bertjax.storage.interpreter import module_command

Figures = dict[str, Any]  # what one run of a contender reports


class Contender(NamedTuple):
    """A function that `benchmarks.speed.worker` knows, its arguments, and the environment of its process."""

    worker: str
    arguments: dict[str, Any]
    environment: Mapping[str, str] = os.environ


class Spread(NamedTuple):
    """Median and ends of a figure over a few runs."""

    median: float
    low: float
    high: float


def take_turns(
    contenders: Mapping[str, Contender], rounds: int, say: Callable[[str], None] = print
) -> dict[str, list[Figures]]:
    """Returns each contender's figures of each round; all run once a round, so that they meet the same weather.

    Args:
      say: is told whose turn it is, and of its figures.
    """
    runs: dict[str, list[Figures]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, contender in contenders.items():
            say(f"round {number} of {rounds}: {name}")
            runs[name].append(figures := run(contender))
            # As soon as they are there: a long benchmark that is ended early has told what it found.
            say("  " + ", ".join(f"{key} {value:,.4g}" for key, value in figures.items() if _is_number(value)))
    return runs


def run(contender: Contender) -> Figures:
    """Runs a contender and returns its figures; raises BertjaxError, with its last line, where it fails."""
    command = module_command("benchmarks.speed.worker", contender.worker, json.dumps(contender.arguments))
    done = subprocess.run(command, env=dict(contender.environment), capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        if done.returncode == ExitCode.BAD_INPUT:  # the caller's own
            raise BertjaxError(said[-1])
        raise BertjaxError(f"the contender {contender.worker} {contender.arguments} failed: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def summarise(runs: Sequence[Figures]) -> Figures:
    """Returns every figure's median; under "spread" its lowest and highest; under "runs" all runs."""
    spreads = {key: spread([run[key] for run in runs]) for key, value in runs[0].items() if _is_number(value)}
    return {
        **{key: of_runs.median for key, of_runs in spreads.items()},
        "spread": {key: [of_runs.low, of_runs.high] for key, of_runs in spreads.items()},
        "runs": list(runs),
    }


def ratios(ours: Sequence[Figures], theirs: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Divides ours by theirs within each round, for every figure that both report."""
    keys = [key for key, value in ours[0].items() if _is_number(value) and _is_number(theirs[0].get(key))]
    return {
        key: spread([a[key] / b[key] for a, b in zip(ours, theirs, strict=True)])._asdict()
        for key in keys
        if all(run[key] for run in theirs)
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))
