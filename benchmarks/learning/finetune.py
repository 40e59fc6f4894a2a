"""Whole runs of fine-tuning over several seeds, each beside transformers' Trainer with the same one."""

import dataclasses
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import with_checkout
from benchmarks.speed.contest import Contender, run
from benchmarks.speed.finetune import PEERS, with_films
from bertjax.config import Config
from bertjax.config.recipes import flat, save_config
from bertjax.errors import BertjaxError
from bertjax.storage.interpreter import module_command

Run = dict[str, Any]  # contender, seed, the figure, and examples a second over the whole training

FIGURES = {"classify": "accuracy", "score": "Pearson"}  # by kind of task

# Trainer's ways, by the precision of the recipe. To group by length costs it nothing, and takes half the time.
_PEERS = {"float32": "trainer_grouped_float32", "bfloat16": "trainer_grouped_bf16"}


def compare(
    config: Config, seeds: int, environment: Mapping[str, str], say: Callable[[str], None], *, peers: bool
) -> dict[str, Any]:
    """Returns a report: each contender with each seed from the recipe's on, one run after the other.

    Args:
      environment: of our processes.
      say: is told how far it is.
      peers: whether Trainer learns too.
    """
    config, texts = with_films(config)
    peer, figure, runs = _PEERS[config.train.precision], FIGURES[config.task.kind], []

    def add(contender: str, seed: int, figures: Run) -> None:
        told = {key: figures[key] for key in (figure, "examples_per_second")}
        runs.append({"contender": contender, "seed": seed, **told})
        say(f"seed {seed}: {contender}: {told[figure]:.2%}, {told['examples_per_second']:,.1f} examples/s")

    for seed in range(config.seed, config.seed + seeds):  # seed by seed, so that a part of it compares already
        with tempfile.TemporaryDirectory(prefix="bertjax-finetune-") as name:
            add("ours", seed, _ours(config, seed, texts, environment, Path(name)))
            if peers:
                recipe = {"config": str(Path(name, "recipe.yaml")), "texts": texts, "seed": seed}
                plain = with_checkout(os.environ) | {"HF_HUB_OFFLINE": "1"}
                add(peer, seed, run(Contender("finetune_peer", {**recipe, **PEERS[peer]}, plain)))
    return {"trial": "finetune-accuracy", "recipe": flat(config), "examples": texts, "figure": figure, "runs": runs}


def _ours(config: Config, seed: int, texts: str, environment: Mapping[str, str], folder: Path) -> Run:
    """Returns the figures of a whole `bertjax finetune`, and of `bertjax evaluate` on other examples."""
    config, figure = dataclasses.replace(config, run_dir=str(folder / "run"), seed=seed), FIGURES[config.task.kind]
    save_config(config, folder / "recipe.yaml")
    _run(["finetune", "--config", str(folder / "recipe.yaml")], environment)
    out = folder / "evaluation.json"
    _run(["evaluate", config.run_dir, "--task.eval", texts, "--json", str(out)], environment)
    timings = [json.loads(line) for line in (folder / "run/timings.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        figure: json.loads(out.read_text(encoding="utf-8"))["figures"][figure]["value"],
        "examples_per_second": [line["pairs_per_second"] for line in timings if "pairs_per_second" in line][-1],
    }


def _run(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(module_command("bertjax", *argv), env=dict(environment), capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise BertjaxError(f"bertjax {argv[0]} failed: {said[-1].removeprefix('bertjax: ')}")


def render(report: dict[str, Any]) -> str:
    """Returns the table, in Markdown."""
    figure = report["figure"]
    lines = [f"| | {figure} | deviation | by seed | examples/s |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(one["contender"] for one in report["runs"]):
        its = [one for one in report["runs"] if one["contender"] == name]
        values = [one[figure] for one in its]
        deviation = f"{100 * statistics.stdev(values):.2f} points" if len(its) > 1 else "-"
        by_seed = ", ".join(f"{value:.2%}" for value in values)
        rate = statistics.median(one["examples_per_second"] for one in its)
        lines.append(f"| {name} | {statistics.mean(values):.2%} | {deviation} | {by_seed} | {rate:,.1f} |")
    seeds = [one["seed"] for one in report["runs"] if one["contender"] == "ours"]
    which = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    told = f"Mean over {which} on {Path(report['examples']).name}, from which nothing was chosen or learned."
    return "\n".join([*lines, "", told])
