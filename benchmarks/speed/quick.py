"""`python -m benchmarks quick`: whether something has become slower, in two minutes and whatever the machine.

Machines change their speed within minutes, so that seconds say little. Each part is timed beside a yardstick, in turn:
a product of matrices, or for what numpy does the sorting of an array. Their quotients are kept in `quick.json`, and
what is far from there has moved.
"""

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.contest import Spread
from benchmarks.speed.table import aligned, describe_machine
from benchmarks.speed.text import TRAIN, VALID, scaled, write_synthetic
from bertjax.config import Config
from bertjax.config.recipes import load_config
from bertjax.data.prepare import Prepared, prepare
from bertjax.data.sources.wikitext_download import file_name
from bertjax.inference.encoder import Encoder
from bertjax.models.bert import make_model
from bertjax.models.operations import training_operations
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.sharding import make_mesh, place_batch
from bertjax.storage.atomic import atomic_write
from bertjax.train.programs import Programs, make_programs
from bertjax.train.step import gradients

PROFILE = Path(__file__).with_name("quick.json")
FAR = 1.35  # times as much, or as little, in the median of the rounds, and their quartiles apart
_SIZE = 1024  # of the yardstick's matrices
_PRODUCT = 2.0 * _SIZE**3  # its operations
_ROWS = 64  # pairs of a batch

Run = Callable[[], Any]


class Part(NamedTuple):
    """Something to time, and what it is timed beside."""

    run: Run
    yardstick: str  # "product" or "sort"
    operations: int | None = None  # of the matrix products that it needs, where it is made of them


def measure(folder: Path, say: Callable[[str], None], *, rounds: int) -> dict[str, Any]:
    """Times every part in every round.

    Args:
      folder: an empty one, for a text made up and its corpus.

    Returns:
      The machine, and for each part its milliseconds, its `cost` in yardsticks as median and quartiles, and the share
      of the product rate that its operations reach.
    """
    say("making up a text")
    config = _config(folder)
    prepared = prepare(config)
    parts, yardsticks = dict(_parts(prepared)), {"product": _product(), "sort": _sort()}
    for name, part in parts.items():
        say(f"compiling: {name}")
        part.run()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        for name, part in parts.items():
            before, its, after = map(_seconds, (yardsticks[part.yardstick], part.run, yardsticks[part.yardstick]))
            seconds[name].append((its, (before + after) / 2))
    return {
        "machine": describe_machine(()),
        "parts": {name: _figures(parts[name], its) for name, its in seconds.items()},
    }


def _config(folder: Path) -> Config:
    text = folder / "text"
    text.mkdir()
    for split, size in (("train", TRAIN), ("valid", VALID)):
        write_synthetic(text / file_name(split), scaled(size, 0.1))
    settings: dict[str, Any] = {"data.path": text, "data.cache": folder / "cache", "run_dir": folder / "run"}
    settings |= {"data.source": "wikitext-2", "data.train_split": "train", "data.eval_split": "valid"}
    settings |= {"train.batch_size": _ROWS, "train.gradient_accumulation_steps": 1}
    settings |= {"tokenizer.min_frequency": 3}  # all words of that text
    return load_config("textbook", [f"{key}={value}" for key, value in settings.items()])


def _parts(prepared: Prepared) -> Iterator[tuple[str, Part]]:
    config, batches = prepared.config, prepared.train_batches
    lines = [" ".join(f"w{number * 7 % 900 + 3 + word}" for word in range(5 + number % 40)) for number in range(256)]
    yield "tokens of 256 texts", Part(lambda: prepared.tokenizer.encode_sentences(lines), "sort")
    yield f"20 batches of {_ROWS}", Part(lambda: [batches.batch_at(number) for number in range(20)], "sort")
    mesh, batch = make_mesh(devices=jax.devices()[:1]), batches.batch_at(0)
    operations, placed = training_operations(config.model, batch), place_batch(batch, mesh)
    for precision in ("float32", "bfloat16"):
        trained = dataclasses.replace(config, train=dataclasses.replace(config.train, precision=precision))
        objective = pretraining_objective(make_model(trained.model, trained.train).clone(mesh=mesh))
        programs = make_programs(trained, objective, mesh)
        params, key = programs.init(0).params, jax.random.key(0)
        forward, backward = jax.jit(objective.metrics), jax.jit(functools.partial(gradients, objective))
        steps = _steps(programs, config, placed)
        yield f"loss, {precision}", Part(_waiting(forward, params, placed, key), "product", operations // 3)
        yield f"gradients, {precision}", Part(_waiting(backward, params, placed, key), "product", operations)
        yield f"step, {precision}", Part(functools.partial(next, steps), "product", operations)
    encoder = Encoder(config.model, params, prepared.tokenizer)
    yield "the texts encoded", Part(lambda: encoder.encode(lines), "product")


def _steps(programs: Programs, config: Config, batch: Any) -> Iterator[Any]:
    """Makes a step whenever asked, from where the last one ended: it may write where its state lay."""
    train_step, state = programs.train_step(config.train.steps), programs.init(0)
    while True:
        state, metrics = train_step(state, batch, 0)
        yield jax.block_until_ready(metrics)


def _waiting(program: Callable[..., Any], *arguments: Any) -> Run:
    return lambda: jax.block_until_ready(program(*arguments))


def _product() -> Run:
    product, x = jax.jit(jnp.matmul), jnp.ones((_SIZE, _SIZE)) / _SIZE
    run = _waiting(product, x, x)
    run()
    return run


def _sort() -> Run:
    numbers = np.random.default_rng(0).random(200_000)
    return lambda: np.sort(numbers)


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _figures(part: Part, seconds: list[tuple[float, float]]) -> dict[str, Any]:
    low, median, high = np.quantile([its / yardstick for its, yardstick in seconds], (0.25, 0.5, 0.75)).tolist()
    figures: dict[str, Any] = {"milliseconds": 1e3 * statistics.median(its for its, _ in seconds)}
    figures |= {"yardstick": part.yardstick, "cost": [median, low, high]}
    if part.operations is not None:
        figures["share"] = part.operations / _PRODUCT / median
    return figures


def keep(report: dict[str, Any]) -> None:
    """Keeps a report as what later ones are compared with."""
    with atomic_write(PROFILE) as file:
        json.dump(report, file, indent=1)
        file.write("\n")


def kept() -> dict[str, Any]:
    """Returns what was kept."""
    report: dict[str, Any] = json.loads(PROFILE.read_text(encoding="utf-8"))
    return report


def moved(cost: Spread, before: Spread) -> bool:
    """Returns whether a part costs more or less than it did, beyond what most rounds differ by."""
    apart = cost.low > before.high or cost.high < before.low
    return apart and not 1 / FAR < cost.median / before.median < FAR


def render(report: dict[str, Any], before: dict[str, Any]) -> str:
    """Returns the table for people: each part, its cost now and as it was kept, and whether it has moved."""
    lines = [["", "ms", "of the product rate", "cost now", "kept", "change", ""]]
    for name, part in report["parts"].items():
        now, share = Spread(*part["cost"]), f"{part['share']:.0%}" if "share" in part else "-"
        line = [name, f"{part['milliseconds']:.1f}", share, _shown(now)]
        if name in before["parts"]:
            then = Spread(*before["parts"][name]["cost"])
            word = ("slower" if now.median > then.median else "faster") if moved(now, then) else ""
            line += [_shown(then), f"x{now.median / then.median:.2f}", word]
        else:
            line += ["-", "-", "new"]
        lines.append(line)
    here, there = (each["machine"]["processor"] for each in (report, before))
    notes = [
        "",
        "Cost: the time that it takes, in products of two float32 matrices of 1,024 or, for tokens and batches, in",
        "sorts of 200,000 numbers: the median of the rounds and its quartiles. Slower or faster is what has changed",
        f"by a factor of {FAR}, with quartiles apart from those that were kept.",
    ]
    if here != there:
        notes.append(f"What was kept is of another processor ({there}; here {here}): compare on the same one.")
    return "\n".join([*aligned(lines), *notes])


def _shown(cost: Spread) -> str:
    return f"{cost.median:.2f} ({cost.low:.2f}-{cost.high:.2f})"
