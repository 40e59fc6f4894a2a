"""Is a student with a teacher better than the same student without? Both learn with the same seeds, steps and words."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertjax.config import Config
from bertjax.errors import BertjaxError
from bertjax.evaluation.evaluate import evaluate_run
from bertjax.train.pretrain import pretrain

FIGURES = ("mlm_loss", "mlm_accuracy", "nsp_accuracy")


def compare(config: Config, seeds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the held-out figures of the teacher, and of the student taught and untaught with each seed.

    Args:
      config: the student's.
      seeds: runs of each, from the configuration's seed on.

    Raises:
      BertjaxError: there is no teacher, or no text.
    """
    teacher = config.distill.teacher
    if teacher is None:
        raise BertjaxError("there is no teacher; give --distill.teacher a run of 'bertjax pretrain'")
    # Without it the run would build a vocabulary of its own.
    alone = dataclasses.replace(
        config,
        distill=dataclasses.replace(config.distill, teacher=None),
        tokenizer=dataclasses.replace(config.tokenizer, path=config.tokenizer.path or teacher),
    )
    students = {"untaught": alone, "taught": config}
    told: dict[str, Any] = {"trial": "distill", "teacher": _figures(evaluate_run(teacher, path=config.data.path).means)}
    told |= {name: [] for name in students}
    with tempfile.TemporaryDirectory(prefix="bertjax-distill-") as folder:
        for seed in range(config.seed, config.seed + seeds):
            for name, student in students.items():
                say(f"seed {seed}: {name}")
                start = time.perf_counter()
                run = pretrain(_of_trial(student, seed, Path(folder) / f"{name}-{seed}"))
                seconds = time.perf_counter() - start
                figures = _figures(evaluate_run(run).means)
                told[name].append({"seed": seed, "seconds": seconds, **figures})
    return told


def _figures(means: dict[str, float]) -> dict[str, float]:
    return {name: means[name] for name in FIGURES if name in means}


def _of_trial(config: Config, seed: int, run_dir: Path) -> Config:
    return dataclasses.replace(
        config,
        run_dir=str(run_dir),
        seed=seed,
        eval=dataclasses.replace(config.eval, every=0),
        checkpoint=dataclasses.replace(config.checkpoint, every=0),
        logging=dataclasses.replace(config.logging, report=False),
    )


def render(told: dict[str, Any]) -> str:
    """Returns the table, in Markdown."""
    lines = ["| | MLM loss | against untaught | MLM accuracy | seconds |", "|---|---|---|---|---|"]
    lines += [f"| the teacher | {told['teacher']['mlm_loss']:.3f} | | {told['teacher']['mlm_accuracy']:.1%} | |"]
    differences = [
        taught["mlm_loss"] - alone["mlm_loss"] for taught, alone in zip(told["taught"], told["untaught"], strict=True)
    ]
    for name in ("untaught", "taught"):
        of = {key: [run[key] for run in told[name]] for key in ("mlm_loss", "mlm_accuracy", "seconds")}
        against = _spread(differences, "+.3f") if name == "taught" else ""
        cells = (_spread(of["mlm_loss"], ".3f"), against, _spread(of["mlm_accuracy"], ".1%"))
        lines.append(f"| the student, {name} | {' | '.join(cells)} | {_spread(of['seconds'], '.0f')} |")
    seeds = len(differences)
    return "\n".join([*lines, "", f"{seeds} seed{'s' if seeds > 1 else ''}: mean (lowest to highest), held out."])


def _spread(values: list[float], form: str) -> str:
    mean = f"{statistics.mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"
