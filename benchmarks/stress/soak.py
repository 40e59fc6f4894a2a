"""Checks that memory, open files and threads stay flat while a run trains for long and encodes many texts."""

import dataclasses
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bertjax.config import Config
from bertjax.config.recipes import save_config
from bertjax.errors import BertjaxError
from bertjax.storage.interpreter import module_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WARM_UP = 0.3  # of the way; until then caches fill
_GLANCE = 0.1  # seconds from one sample to the next
_POINTS = 400  # of a curve in the report, at most
_PROGRESS = re.compile(rb"^(?:step|texts) (\d+)/\d+", re.MULTILINE)

# What counts as flat: bytes a step or a text, and how many files and threads more at the end than after the warm-up.
BYTES_A_STEP, BYTES_A_TEXT, MORE_AT_THE_END = 512, 8, 0.9
# TensorStore never frees the JSON it turns into Python's objects, as Orbax asks it to in every save: with 0.1.86 that
# is some 200 KB for each checkpoint of tiny. Ours would come on top.
BYTES_A_CHECKPOINT = 2**18


class Sample(NamedTuple):
    """A process at a moment."""

    progress: int  # steps or texts behind it
    memory_bytes: int  # resident and its own, not a mapped file's
    open_files: int
    threads: int


def soak(
    config: Config, folder: Path, environment: Mapping[str, str], say: Callable[[str], None], *, texts: int
) -> dict[str, Any]:
    """Returns a report: curves and the lines fitted to them, of training and of encoding with the trained run.

    Args:
      folder: an empty one, for the run.
      texts: how many to encode.

    Raises:
      BertjaxError: this system does not tell of a process's memory, or a process fails.
    """
    logging = dataclasses.replace(config.logging, report=False)  # whose memory is none of the training's
    config = dataclasses.replace(config, run_dir=str(folder / "run"), logging=logging)
    save_config(config, folder / "recipe.yaml")
    say(f"training for {config.train.steps:,} steps")
    pretrain = module_command("bertjax", "pretrain", "--config", str(folder / "recipe.yaml"))
    training = watched(pretrain, folder, environment)
    say(f"encoding {texts:,} texts")
    encode = module_command("benchmarks.stress.streaming", config.run_dir, str(texts))
    encoding = watched(encode, folder, environment)
    of_checkpoints = BYTES_A_CHECKPOINT / config.checkpoint.every if config.checkpoint.every else 0.0
    return {
        "trial": "soak",
        "training": fitted(training, most_bytes=BYTES_A_STEP + of_checkpoints),
        "encoding": fitted(encoding, most_bytes=BYTES_A_TEXT),
    }


def watched(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> list[Sample]:
    """Runs a command that prints lines such as `step 3/20` or `texts 4096/1000000`; returns samples from them on."""
    if not Path("/proc/self/status").exists():
        raise BertjaxError("this system has no /proc, which tells of a process's memory; soak on Linux")
    output, errors, samples = folder / "output.txt", folder / "errors.txt", []
    with open(output, "wb") as out, open(errors, "wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=dict(environment))
    try:
        with open(output, "rb") as said:
            progress = 0
            while process.poll() is None:
                if found := _PROGRESS.findall(said.read()):  # what is new
                    progress = int(found[-1])
                if progress and (sample := _sample(process.pid, progress)):
                    samples.append(sample)
                time.sleep(_GLANCE)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        last = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["nothing"]
        raise BertjaxError(f"{' '.join(command[2:5])} ended with code {process.returncode}, saying: {last[0]}")
    return samples


def _sample(pid: int, progress: int) -> Sample | None:
    """Returns a sample of a process; None where it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        memory, threads = (re.search(rf"^{key}:\s+(\d+)", status, re.MULTILINE) for key in ("RssAnon", "Threads"))
        files = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    return Sample(progress, int(memory[1]) * 1024, files, int(threads[1])) if memory and threads else None


def fitted(samples: Sequence[Sample], *, most_bytes: float) -> dict[str, Any]:
    """Returns curves, and the slope of each after the warm-up by least squares.

    Args:
      most_bytes: bytes a step or a text by which flat memory grows at most.

    Raises:
      BertjaxError: there are too few samples to tell.
    """
    end = samples[-1].progress if samples else 0
    late = np.array([sample for sample in samples if sample.progress >= WARM_UP * end], float)
    if len(late) < 10 or np.ptp(late[:, 0]) == 0:
        raise BertjaxError(f"{len(samples)} samples are too few to fit a slope; give more steps or texts")
    slopes = {
        name: float(np.polyfit(late[:, 0], late[:, column], 1)[0])
        for column, name in enumerate(Sample._fields)
        if column > 0
    }
    more = {name: slope * float(np.ptp(late[:, 0])) for name, slope in slopes.items()}
    thinned = np.array(samples)[np.unique(np.linspace(0, len(samples) - 1, _POINTS).astype(int))]
    return {
        "done": end,
        "samples": len(samples),
        "slopes": slopes,
        "most_bytes": most_bytes,
        "more_at_the_end": more,
        "at_the_end": samples[-1]._asdict(),
        "flat": slopes["memory_bytes"] <= most_bytes and max(more["open_files"], more["threads"]) <= MORE_AT_THE_END,
        "curves": {name: thinned[:, column].tolist() for column, name in enumerate(Sample._fields)},
    }


def render(report: dict[str, Any]) -> str:
    """Returns a few lines on training and on encoding."""
    lines = []
    for part, unit in (("training", "step"), ("encoding", "text")):
        its = report[part]
        more, end = its["more_at_the_end"], its["at_the_end"]
        lines.append(f"{part}: {its['done']:,} {unit}s, {'flat' if its['flat'] else 'NOT FLAT'} after the warm-up")
        lines.append(
            f"  memory      {its['slopes']['memory_bytes']:+10.2f} bytes a {unit} (flat to {its['most_bytes']:,.0f}): "
            f"{more['memory_bytes'] / 2**20:+.2f} of {end['memory_bytes'] / 2**20:.0f} MiB"
        )
        lines += [
            f"  {name.replace('_', ' '):<12}{more[name]:+9.2f} of {end[name]}" for name in ("open_files", "threads")
        ]
    return "\n".join(lines)


def draw(report: dict[str, Any]) -> "Figure":
    """Draws memory, open files and threads against progress: a row for training, one for encoding."""
    from matplotlib.figure import Figure  # not pyplot: it would choose a backend

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    panels = figure.subplots(2, 3)
    for row, (part, unit) in zip(panels, (("training", "steps"), ("encoding", "texts")), strict=True):
        curves = report[part]["curves"]
        for axes, (name, title, scale) in zip(
            row,
            (("memory_bytes", "memory, MiB", 2**20), ("open_files", "open files", 1), ("threads", "threads", 1)),
            strict=True,
        ):
            axes.plot(curves["progress"], np.array(curves[name]) / scale, color="C0", lw=1)
            axes.axvspan(0, WARM_UP * report[part]["done"], color="0.93", lw=0)
            axes.set(title=f"{part}: {title}", xlabel=unit, ylim=(0, 1.15 * max(curves[name]) / scale))
            axes.margins(x=0)
            axes.spines[["top", "right"]].set_visible(False)
    return figure
