"""A corpus larger than memory need be: made-up text is tokenised, killed on the way, watched, and drawn from.

`python -m benchmarks.stress.corpus RECIPE` draws batches of a corpus that is built, and tells the memory it took.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bertjax.config import Config, DataConfig
from bertjax.config.recipes import load_config, save_config
from bertjax.data.prepare import prepare
from bertjax.data.sources.files import SHARD_BYTES
from bertjax.errors import BertjaxError
from bertjax.storage.interpreter import module_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GLANCE = 0.25  # seconds from one sample to the next
_POINTS = 1000  # of a curve in the report, at most
_BATCHES = 300
_WORDS, _SENTENCES = 200_000, 100_000  # that the text is made of
_SYLLABLES = [first + second for first in "bcdfghklmnprstvw" for second in ("a", "e", "i", "o", "u", "er", "an")]
_STAGES = ("vocabulary", "shards", "joining")


class Sample(NamedTuple):
    """A build and all its processes at a moment."""

    seconds: float  # that it ran, in all its starts
    stage: int  # of _STAGES
    done: int  # shards
    memory_bytes: int  # resident and their own, not a mapped file's


def build_and_draw(
    config: Config,
    folder: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    gigabytes: float,
    kills: int,
) -> dict[str, Any]:
    """Returns a report: rates, and memory while a corpus was built and while batches were drawn from it.

    Args:
      folder: an empty one, with room for three times the text.
      kills: SIGKILLs, at evenly spaced shards.

    Raises:
      BertjaxError: this system does not tell of a process's memory, or a process fails.
    """
    if not Path("/proc/self/status").exists():
        raise BertjaxError("this system has no /proc, which tells of a process's memory; try it on Linux")
    say(f"writing {gigabytes:g} GB of text")
    text, cache, recipe = folder / "text.jsonl", folder / "cache", folder / "recipe.yaml"
    documents = write_text(text, round(gigabytes * 1e9))
    of_data = {"path": str(text), "cache": str(cache), "max_length": config.data.max_length}
    save_config(dataclasses.replace(config, data=DataConfig("files", **of_data)), recipe)  # type: ignore[arg-type]
    shards, samples, said = text.stat().st_size // SHARD_BYTES, [Sample(0.0, 0, 0, 0)], ""
    for kill in range(1, kills + 2):
        until = shards * kill // (kills + 1) if kill <= kills else None
        say("building" if until is None else f"building, to be killed after {until} shards of {shards}")
        said = _watched(["bertjax", "prepare", "--config", str(recipe)], folder, environment, samples, until)
    say("drawing batches")
    drawn = subprocess.run(
        module_command("benchmarks.stress.corpus", str(recipe)),
        env=dict(environment),
        stdout=subprocess.PIPE,
        check=True,
    )
    size = text.stat().st_size
    of_text = {"bytes": size, "documents": documents, "shards": shards}
    drawing = json.loads(drawn.stdout.splitlines()[-1])
    return {
        "trial": "corpus",
        "text": of_text,
        "kills": kills,
        "said": said,
        "drawing": drawing,
        **summary(samples[1:]),
    }


def write_text(path: Path, size: int) -> int:
    """Writes JSON lines of so many bytes, always the same, and returns how many; their words follow Zipf's law."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(_SYLLABLES, rng.integers(1, 6))) for _ in range(_WORDS)]
    shares = 1 / (np.arange(_WORDS) + 2.7)
    ranks = iter(rng.choice(_WORDS, 40 * _SENTENCES, p=shares / shares.sum()).tolist())
    sentences = [
        " ".join(words[next(ranks)] for _ in range(length)).capitalize() + "."
        for length in rng.integers(3, 40, _SENTENCES).tolist()
    ]
    documents = 0
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < size:
            for count in rng.integers(1, 60, 1000).tolist():
                chosen = rng.integers(0, _SENTENCES, count).tolist()
                file.write(json.dumps({"text": " ".join(sentences[number] for number in chosen)}) + "\n")
                documents += 1
    return documents


def _watched(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], samples: list[Sample], until: int | None
) -> str:
    """Runs a command, killed after so many shards, and returns its output; appends samples of it."""
    began = time.perf_counter() - samples[-1].seconds
    with open(folder / "errors.txt", "w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            module_command(*command), stdout=subprocess.PIPE, stderr=errors, env=dict(environment), text=True
        )
        with process:
            while process.poll() is None:
                stage, done = _stage(folder / "cache" / "corpora")
                samples.append(Sample(time.perf_counter() - began, stage, done, _memory_of_all(process.pid)))
                if until is not None and done >= until:
                    process.kill()
                time.sleep(_GLANCE)
            assert process.stdout is not None
            said = process.stdout.read()
        errors.seek(0)
        if process.returncode and until is None:
            last = errors.read().strip().splitlines()[-1:] or ["nothing"]
            raise BertjaxError(f"{' '.join(command)} ended with code {process.returncode}, saying: {last[0]}")
    return said


def _stage(corpora: Path) -> tuple[int, int]:
    """Returns the number of the stage and the shards that are done."""
    done = len(list(corpora.glob("files-*.shards/0*")))
    joining = any(corpora.glob(".building-*")) or any(corpora.glob("files-train-*"))
    return (2 if joining else 1 if any(corpora.glob("files-*.shards")) else 0), done


def _memory_of_all(pid: int) -> int:
    """Returns resident anonymous bytes of a process and of all that it started."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = [Path(f"/proc/{pid}/task/{task.name}/children") for task in Path(f"/proc/{pid}/task").iterdir()]
        below = [int(child) for file in children for child in file.read_text().split()]
    except OSError:  # it has just ended
        return 0
    own = re.search(r"^RssAnon:\s+(\d+)", status, re.MULTILINE)
    return (int(own[1]) * 1024 if own else 0) + sum(map(_memory_of_all, below))


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns seconds and the highest memory of each stage, and that of both halves of the shards."""
    table = np.array(samples, float)
    seconds, stage, done, memory = table.T
    lasted = np.diff(seconds, prepend=0)
    late = done > done.max() / 2
    halves = [memory[(stage == 1) & (late == half)] for half in (False, True)]
    some = np.unique(np.linspace(0, len(table) - 1, _POINTS).astype(int))
    return {
        "stages": {
            name: {"seconds": float(lasted[stage == n].sum()), "most_memory_bytes": float(memory[stage == n].max())}
            for n, name in enumerate(_STAGES)
            if (stage == n).any()
        },
        "most_memory_bytes_of_halves": [float(half.max(initial=0)) for half in halves],
        "curves": {name: table[some, column].tolist() for column, name in enumerate(Sample._fields)},
    }


def render(report: dict[str, Any]) -> str:
    """Returns a few lines on stages, memory and batches."""
    size, drawing = report["text"]["bytes"], report["drawing"]
    lines = [f"{size / 1e9:.2f} GB, {report['text']['documents']:,} documents, {report['kills']} kills"]
    for name, its in report["stages"].items():
        rate = f", {size / 1e6 / its['seconds']:.1f} MB/s" if name == "shards" and its["seconds"] else ""
        lines.append(
            f"  {name:<12}{its['seconds']:7.0f} s{rate}; memory {its['most_memory_bytes'] / 2**20:,.0f} MiB at most"
        )
    halves = (f"{most / 2**20:,.0f}" for most in report["most_memory_bytes_of_halves"])
    lines.append(f"  memory {' and '.join(halves)} MiB at most in the first and in the second half of the shards")
    lines.append(
        f"  batches: {drawing['pairs_per_second']:,.0f} pairs/s of {drawing['pairs']:,}, shuffled; memory "
        f"{drawing['memory_bytes'][0] / 2**20:,.1f} MiB before, {drawing['memory_bytes'][1] / 2**20:,.1f} after"
    )
    return "\n".join([*lines, report["said"].rstrip()])


def draw(report: dict[str, Any]) -> "Figure":
    """Draws the memory of all processes, and the shards that are done, against time."""
    from matplotlib.figure import Figure  # not pyplot: it would choose a backend

    curves = {name: np.array(values) for name, values in report["curves"].items()}
    curves["done"] = np.maximum.accumulate(curves["done"])  # the shards go when they are joined
    figure = Figure(figsize=(9, 4), layout="constrained")
    memory = figure.subplots()
    shards = memory.twinx()
    tokenised = curves["done"] / max(1, curves["done"].max()) * report["text"]["bytes"] / 1e9
    shards.fill_between(curves["seconds"], tokenised, color="0.9", lw=0)
    memory.plot(curves["seconds"], curves["memory_bytes"] / 2**20, color="C0", lw=1)
    memory.set_zorder(shards.get_zorder() + 1)
    memory.patch.set_visible(False)
    memory.set(xlabel="seconds", ylabel="memory of all processes, MiB", ylim=(0, None))
    shards.set(ylabel="tokenised, GB (grey)", ylim=(0, None))
    for number, name in enumerate(_STAGES):
        if (of_stage := curves["stage"] == number).any():
            middle = float(curves["seconds"][of_stage].mean())
            memory.annotate(name, (middle, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom")
    memory.margins(x=0)
    for axes in (memory, shards):
        axes.spines["top"].set_visible(False)
    return figure


def main(recipe: str) -> None:
    batches = prepare(load_config(recipe)).train_batches
    before, began = _memory_of_all(os.getpid()), time.perf_counter()
    far = max(1, batches.num_sequences // batches.batch_size // _BATCHES)
    for number in range(_BATCHES):
        batches.batch_at(number * far)
    seconds = time.perf_counter() - began
    rate, memory = _BATCHES * batches.batch_size / seconds, [before, _memory_of_all(os.getpid())]
    print(json.dumps({"pairs": batches.num_sequences, "pairs_per_second": rate, "memory_bytes": memory}))


if __name__ == "__main__":
    main(*sys.argv[1:])
