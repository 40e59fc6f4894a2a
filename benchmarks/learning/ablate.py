"""Runs a recipe and variants of it with several seeds: what each option is worth, and how far seeds differ."""

import dataclasses
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bertjax.config import Config
from bertjax.config.recipes import flat, load_config, save_config
from bertjax.errors import BertjaxError
from bertjax.storage.atomic import atomic_write
from bertjax.storage.interpreter import module_command

BASE = "base"
# These change nothing that is told: where a run is, and its seed.
_OF_A_RUN = ("run_dir", "seed")
# Held-out figures are on the same predictions whatever these are; evaluation is at the base's masking rate.
_SAME_TASK: dict[str, Any] = {"mlm_probability": 1.0, "row_length": None, "workers": None, "cache": None}

Run = dict[str, Any]  # variant, seed, and seconds with the means of both halves, or why it failed


class Variant(NamedTuple):
    """A variant of the base recipe: what is flipped, as it was given, and the recipe that it makes."""

    name: str
    config: Config


def variants(base: Config, flips: Sequence[str]) -> list[Variant]:
    """Returns the base itself, and a variant for each flip.

    Args:
      flips: such as "optim.name=muon", or "optim.name=muon,optim.weight_decay=0.1", which are one flip.

    Raises:
      BertjaxError: a flip that is none, that makes an impossible recipe, that changes nothing, or is given twice.
    """
    found = [Variant(BASE, base)]
    with tempfile.TemporaryDirectory() as folder:
        save_config(base, Path(folder) / "base.yaml")
        for flip in flips:
            try:
                config = load_config(Path(folder) / "base.yaml", flip.split(","))
            except BertjaxError as error:
                raise BertjaxError(f"--flip {flip}: {error}") from error
            if changed := [key for key in _OF_A_RUN if flat(config)[key] != flat(base)[key]]:
                raise BertjaxError(f"--flip {flip} changes {changed[0]}, which every run has of its own; flip another")
            same = next((other.name for other in found if other.config == config), None)
            if same is not None:
                raise BertjaxError(f"--flip {flip} makes the recipe of {same}; leave it out")
            found.append(Variant(flip, config))
    return found


def ablate(
    wanted: Sequence[Variant],
    seeds: int,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Returns a report: each variant with each seed from the base's on, one run after the other, in own processes.

    Args:
      keep: where the report is written after each run, and read first: what is in it is not run again.

    Raises:
      BertjaxError: `keep` is of another recipe or cannot be read or written.
    """
    base = wanted[0].config
    runs = _kept(keep, base)
    numbers = range(base.seed, base.seed + seeds)
    for seed in numbers:  # seed by seed, so that a part of it already compares all variants
        for number, variant in enumerate(wanted, 1):
            if any((run["variant"], run["seed"]) == (variant.name, seed) for run in runs):
                continue
            say(f"seed {seed}, {number} of {len(wanted)}: {variant.name}")
            runs.append({"variant": variant.name, "seed": seed, **_run(variant.config, base, seed, environment)})
            _keep(keep, base, runs)
    chosen = [run for run in runs if run["seed"] in numbers and run["variant"] in {name for name, _ in wanted}]
    return {"trial": "ablate", "recipe": _comparable(base), "runs": chosen}


def _run(config: Config, base: Config, seed: int, environment: Mapping[str, str]) -> Run:
    """Returns the seconds of a whole `bertjax pretrain`, and the figures of `bertjax evaluate` for each half."""
    with tempfile.TemporaryDirectory(prefix="bertjax-ablate-") as name:
        folder = Path(name)
        config = dataclasses.replace(
            config,
            run_dir=str(folder / "run"),
            seed=seed,
            eval=dataclasses.replace(config.eval, every=0),
            checkpoint=dataclasses.replace(config.checkpoint, every=0),
            logging=dataclasses.replace(config.logging, report=False),
        )
        save_config(config, folder / "recipe.yaml")
        start = time.perf_counter()
        failure = _failure(["pretrain", "--config", str(folder / "recipe.yaml")], environment)
        run: Run = {"seconds": time.perf_counter() - start}
        for half in ("even", "odd"):
            out = folder / f"{half}.json"
            rate = base.data.mlm_probability if base.eval.mlm_probability is None else base.eval.mlm_probability
            options = ["--half", half, "--json", str(out), "--eval.mlm_probability", str(rate)]
            failure = failure or _failure(["evaluate", config.run_dir, *options], environment)
            if failure:
                return {"failed": failure}
            run[half] = json.loads(out.read_text(encoding="utf-8"))["means"]
        return run


def _failure(argv: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Returns the last words of a command that failed. An option may well make training diverge: that is a result."""
    done = subprocess.run(module_command("bertjax", *argv), env=dict(environment), capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]


def _comparable(base: Config) -> dict[str, Any]:
    return {key: value for key, value in flat(base).items() if key not in _OF_A_RUN}


def _kept(keep: Path | None, base: Config) -> list[Run]:
    if keep is None or not keep.exists():
        return []
    try:
        report = json.loads(keep.read_text(encoding="utf-8"))
        runs, recipe = report["runs"], report["recipe"]
        for run in runs:
            run["variant"], run["seed"], run.get("failed") or (run["seconds"], run["even"], run["odd"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BertjaxError(f"--json {keep} exists and is no report of this trial; give another name") from error
    ours = json.loads(json.dumps(_comparable(base)))
    if other := [key for key in ours if key not in recipe or recipe[key] != ours[key]]:
        raise BertjaxError(f"--json {keep} is of another recipe, by {', '.join(other)}; give another name")
    return runs


def _keep(keep: Path | None, base: Config, runs: list[Run]) -> None:
    if keep is None:
        return
    report = {"trial": "ablate", "recipe": _comparable(base), "runs": runs}
    try:
        with atomic_write(keep) as file:
            file.write(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise BertjaxError(f"cannot write --json {keep}: {error.strerror}; give another place") from error


def render(report: dict[str, Any], wanted: Sequence[Variant]) -> str:
    """Returns the table, in Markdown."""
    seeds = {run["seed"] for run in report["runs"]}
    by_variant = {name: [run for run in report["runs"] if run["variant"] == name] for name, _ in wanted}
    ended = {name: runs for name, runs in by_variant.items() if not any("failed" in run for run in runs)}
    chosen = min(ended, key=lambda name: _mean(ended[name], "even", "mlm_loss")) if ended else None
    comparable = {name for name, config in wanted if _same_task(config, wanted[0].config)}
    lines = [
        "| | MLM loss, even half | MLM loss | against the base | MLM accuracy | NSP accuracy | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in by_variant.items():
        title = f"`{name}`" if name != BASE else "the base recipe"
        title = f"**{title}**" if name == chosen and name in comparable else title
        title += "" if name in comparable else " \\*"
        if name not in ended:
            failures = {run["seed"]: run["failed"] for run in runs if "failed" in run}
            seed, words = next(iter(failures.items()))
            lines.append(f"| {title} | failed with {len(failures)} of {len(runs)} seeds; {seed}: {words} | | | | | |")
            continue
        of_base = ended.get(BASE) if name != BASE and name in comparable else None
        cells = [
            _spread([run["even"]["mlm_loss"] for run in runs], ".3f"),
            _spread([run["odd"]["mlm_loss"] for run in runs], ".3f"),
            _against(runs, of_base) if of_base else "",
            _spread([run["odd"]["mlm_accuracy"] for run in runs], ".1%"),
            _spread([run["odd"]["nsp_accuracy"] for run in runs if "nsp_accuracy" in run["odd"]], ".1%"),
            _spread([run["seconds"] for run in runs], ",.0f"),
        ]
        lines.append(f"| {' | '.join([title, *cells])} |")
    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    notes = [
        f"{count}: mean (lowest to highest). Held out: the bold one is best on the even pairs, by which it is chosen; "
        "all else is told of the odd ones. Seconds are of the whole process, start-up and compilation included."
    ]
    if len(comparable) < len(wanted):
        notes.append("\\* has other words to predict than the base, so that their losses cannot be compared.")
    return "\n".join([*lines, "", *notes])


def _same_task(config: Config, base: Config) -> bool:
    ours, its = (dataclasses.replace(one.held_out_data, **_SAME_TASK) for one in (base, config))
    return ours == its and base.tokenizer == config.tokenizer


def _mean(runs: Sequence[Run], half: str, name: str) -> float:
    return statistics.mean(run[half][name] for run in runs)


def _against(runs: Sequence[Run], of_base: Sequence[Run]) -> str:
    """Compares seed by seed. An option that helps with one seed and hurts with another makes no difference."""
    base = {run["seed"]: run["odd"]["mlm_loss"] for run in of_base}
    differences = [run["odd"]["mlm_loss"] - base[run["seed"]] for run in runs if run["seed"] in base]
    if len(differences) > 1 and min(differences) <= 0 <= max(differences):
        return f"{_spread(differences, '+.3f')}: none"
    return _spread(differences, "+.3f")


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    mean, low, high = (format(value, form) for value in (statistics.mean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"
