"""Seconds that a person waits for the first step of a run, for a help text, for the message of a mistake."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertjax.errors import BertjaxError
from bertjax.storage.interpreter import module_command

# The second step is sent off before the first one's line is written: a program that is traced for it too is waited for.
_TWO_STEPS = ["--train.steps=2", "--train.log_every=1", "--optim.warmup_steps=0", "--eval.every=0"]
_TWO_STEPS += ["--logging.report=false"]
_PAUSE = 0.002  # seconds between two looks whether the first step is done


def start(*, config: str) -> dict[str, Any]:
    """Times starts, the corpus being built: with an empty cache of compiled programs, and again."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"XDG_CACHE_HOME": str(Path(folder, "cache"))}
        return {
            "first_step_seconds": until_first_step(config, Path(folder, "first"), environment),
            "again_first_step_seconds": until_first_step(config, Path(folder, "again"), environment),
            "help_seconds": until_end("--help", code=0),
            "mistake_seconds": until_end("pretrain", "--train.steps", "0", code=2),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _RSS_UNIT,
        }


_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


def start_finetuning(*, config: str) -> dict[str, Any]:
    """Times starts of fine-tuning: with an empty cache of compiled programs, and again."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"XDG_CACHE_HOME": str(Path(folder, "cache"))}
        return {
            f"{name}first_step_seconds": until_first_step(
                config, Path(folder, f"{name}run"), environment, "finetune", "--train.epochs=null"
            )
            for name in ("", "again_")
        }


def until_first_step(
    config: str, run_dir: Path, environment: Mapping[str, str], command: str = "pretrain", *more: str
) -> float:
    """Returns the seconds to a step's line in metrics.jsonl; the run is then let end, so that its caches are whole.

    Args:
      command: of `bertjax`, which trains.
      more: further options of it.
    """
    argv = [*_BERTJAX, command, "--config", config, "--run_dir", str(run_dir), *_TWO_STEPS, *more]
    metrics = run_dir / "metrics.jsonl"
    with tempfile.TemporaryFile("w+") as said:
        begin = time.perf_counter()
        with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=said) as process:
            while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
                time.sleep(_PAUSE)
            seconds = time.perf_counter() - begin
        if process.returncode:
            said.seek(0)
            raise BertjaxError(f"the run ended with code {process.returncode}: {said.read().strip()}")
    return seconds


def until_end(*argv: str, code: int) -> float:
    """Returns the seconds of `bertjax` with these arguments, which is to exit with this code."""
    begin = time.perf_counter()
    done = subprocess.run([*_BERTJAX, *argv], capture_output=True)
    assert done.returncode == code, done
    return time.perf_counter() - begin


_BERTJAX = module_command("bertjax")
