"""`python scripts/gpu_check.py`: what bertjax makes of one NVIDIA GPU, in under four minutes, on a bare machine too.

Each part runs in a process of its own, with a time limit of its own: one that fails, or is stopped, says so in its row
of the table, and the others are told all the same. The standard library is enough to import this.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.environment import with_checkout
from benchmarks.gpu.install import cuda_version, jax_extra, prepare

BUDGET = 230.0  # seconds
_INSTALLING = 0.6  # of the budget, at most
_LEAST = 5.0  # seconds without which no part is begun

Row = dict[str, Any]  # "part", "status", "seconds", and what the part reports


class Part(NamedTuple):
    """Something that is measured."""

    title: str
    worker: str  # as `benchmarks.speed.worker` knows it
    arguments: dict[str, Any]
    limit: float = 60.0  # seconds
    environment: dict[str, str] = {}  # noqa: RUF012


# Scanned layers compile several times faster, which is most of a part's time.
_PUBLISHED = ["train.precision=bfloat16", "train.scan_layers=true", "model.vocab_size=30522", "optim.warmup_steps=0"]
_SHORT_TEXT = ["data.source=python-docs", "tokenizer.kind=word"]  # prepared within seconds
_MIXED = [219, 118, 75, 63, 37]  # tokens of the sequences in a row of 512
# XLA's scatters and its choice of kernels differ from run to run without it.
_REPEATABLE = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}


def parts(*, tiny: bool = False) -> list[Part]:
    """Returns the parts, what matters most first: the last ones may find the budget spent.

    Args:
      tiny: sizes for a CPU, one part of every kind.
    """
    if tiny:
        sizes = "hidden_size=16 num_layers=1 num_heads=2 intermediate_size=32 max_position=64 vocab_size=512".split()
        small = [*(f"model.{size}" for size in sizes), "train.batch_size=4", "optim.warmup_steps=0"]
        short = _steps("base", 32, 4, small, steps=2)
        found = [
            Part("tiny, packed rows, xla", "gpu_steps", short | {"attention": "xla", "lengths": [20, 7, 5]}),
            Part("tiny, cudnn", "gpu_steps", short | {"attention": "cudnn"}),
            Part("textbook", "gpu_textbook", {"recipe": "tiny", "overrides": [], "warm": 1, "steps": 2}),
            Part("tiny, encode", "gpu_encode", {"recipe": "tiny", "overrides": [], "texts": 32}),
            Part("kill and resume", "gpu_resume", {"recipe": "torture", "overrides": ["train.steps=8"]}),
            Part(
                "tiny, bf16 and float32",
                "gpu_precision",
                {"recipe": "base", "overrides": [*small, "data.max_length=32"], "steps": 2},
            ),
        ]
        return [part._replace(limit=300.0) for part in found]
    base_512, base_128 = _steps("base", 512, 32), _steps("base", 128, 128)
    large_512, large_128 = _steps("large", 512, 16), _steps("large", 128, 64)
    encoding = {"recipe": "base", "overrides": _SHORT_TEXT, "texts": 16_384}
    whole = ["train.gradient_accumulation_steps=1"]  # the recipe's parts are for a CPU's caches
    textbook = {"recipe": "textbook", "overrides": whole, "warm": 3, "steps": 40}
    loss = {"recipe": "base", "overrides": [*_PUBLISHED, "model.dropout=0", "train.batch_size=32"], "steps": 5}
    return [
        *_both("base, 512", base_512),
        Part("textbook, float32", "gpu_textbook", textbook),
        Part("kill and resume", "gpu_resume", {"recipe": "torture", "overrides": []}, 90.0, _REPEATABLE),
        Part("base, encode", "gpu_encode", encoding, 90.0),
        Part("base, packed rows of 512", "gpu_steps", base_512 | {"lengths": _MIXED}),
        Part("base, bf16 and float32", "gpu_precision", loss),
        *_both("large, 512", large_512),
        *_both("base, 128", base_128),
        *_both("large, 128", large_128),
        Part("textbook, bf16", "gpu_textbook", textbook | {"overrides": [*whole, "train.precision=bfloat16"]}),
        Part(
            "base, 512, dropout 0.1",
            "gpu_steps",
            base_512 | {"overrides": [*base_512["overrides"], "model.dropout=0.1"]},
        ),
    ]


def _steps(recipe: str, length: int, rows: int, settings: Sequence[str] = _PUBLISHED, *, steps: int = 20) -> Row:
    """Arguments of `gpu_steps`; without dropout, which not every attention backend has."""
    sizes = [f"data.max_length={length}", f"train.batch_size={rows}", "model.dropout=0"]
    overrides = [*settings, *sizes]
    of_steps = {"warm": min(3, steps), "steps": steps}
    return {"recipe": recipe, "overrides": overrides, "attention": "auto", "lengths": None, **of_steps}


def _both(title: str, arguments: Row) -> list[Part]:
    return [
        Part(f"{title}, {backend}", "gpu_steps", arguments | {"attention": backend}) for backend in ("cudnn", "xla")
    ]


def run_part(part: Part, python: str, environment: Mapping[str, str], seconds: float) -> Row:
    """Runs a part and returns its row: "ok", "failed: ..." or "stopped after ... s".

    Args:
      python: that runs it.
      seconds: after which it is killed, with all that it started.
    """
    command = [python, "-P", "-m", "benchmarks.speed.worker", part.worker, json.dumps(part.arguments)]
    row: Row = {"part": part.title}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env={**environment, **part.environment}, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # after Ctrl-C too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        row["seconds"] = time.monotonic() - began
        if code is None:
            return row | {"status": f"stopped after {seconds:.0f} s"}
        out.seek(0)
        err.seek(0)
        if code:
            return row | {"status": f"failed: {_last_words(err.read()) or f'code {code}'}"}
        try:
            return row | {"status": "ok", **json.loads(out.read().splitlines()[-1])}
        except (IndexError, ValueError):
            return row | {"status": "failed: it ended without figures"}


def _last_words(said: str) -> str:
    """Returns the message of what went wrong: the last line, or the error that a traceback ends with."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines:
        return ""
    errors = [line for line in lines if "Error: " in line]
    return (errors or lines)[-1].removeprefix("bertjax.errors.BertjaxError: ")[:200]


def check(wanted: Sequence[Part], python: str, deadline: float, say: Callable[[str], None]) -> list[Row]:
    """Runs the parts one after the other.

    Args:
      deadline: of `time.monotonic`; a part under way then is stopped, and those after it are "not run".

    Returns:
      A row for each.
    """
    with tempfile.TemporaryDirectory(prefix="bertjax-gpu-programs-") as kept:
        # XLA tries several kernels for a product, and keeps beside the programs which one was the fastest.
        return _check(wanted, python, deadline, say, {"JAX_COMPILATION_CACHE_DIR": kept, **os.environ})


def _check(
    wanted: Sequence[Part],
    python: str,
    deadline: float,
    say: Callable[[str], None],
    environment: Mapping[str, str],
) -> list[Row]:
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9", **with_checkout(environment)}
    rows: list[Row] = []
    for part in wanted:
        left = deadline - time.monotonic()
        row: Row = {"part": part.title, "status": "not run", "seconds": 0.0}
        if left >= _LEAST:
            row = run_part(part, python, environment, min(part.limit, left))
        say(f"{part.title}: {row['status']} ({row['seconds']:.0f} s)")
        rows.append(row)
    return rows


_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("tokens_per_second", "tokens/s", lambda value: f"{value:,.0f}"),
    ("pairs_per_second", "pairs/s", lambda value: f"{value:,.0f}"),
    ("share_of_peak", "of bf16 peak", lambda value: f"{value:.1%}"),
    ("device_memory_bytes", "peak memory, GiB", lambda value: f"{value / 2**30:.1f}"),
    ("first_step_seconds", "first step, s", lambda value: f"{value:.1f}"),
)


def render(report: dict[str, Any]) -> str:
    """Returns the report as Markdown: machine, notes, and a table with a row for every part."""
    heads = ["part", *(title for _, title, _ in _COLUMNS), ""]
    table = [heads, ["---", *("---:" for _ in _COLUMNS), "---"]]
    for row in report["rows"]:
        cells = [show(row[key]) if key in row else "" for key, _, show in _COLUMNS]
        words = row.get("note", "") if row["status"] == "ok" else row["status"]
        table.append([row["part"], *cells, words.replace("|", "\\|")])
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    notes = [
        f"{report['machine']}; {report['seconds']:.0f} s in all.",
        *report["notes"],
        "Parts with a length train on full rows of random tokens: bfloat16, scanned layers, no dropout unless told.",
    ]
    return "\n".join([*notes, "", *lines])


def _describe(rows: Sequence[Row], cuda: tuple[int, int] | None) -> str:
    row = next((row for row in rows if "device" in row), {})
    peak = f", {row['peak_flops'] / 1e12:,.0f} TFLOP/s in bf16" if "peak_flops" in row else ""
    driver = f"a driver for CUDA {cuda[0]}.{cuda[1]}" if cuda else "no NVIDIA driver"
    return f"{row.get('device', 'no device')}{peak}, {driver}, jax {row.get('jax', '-')}, {platform.platform()}"


def main(argv: Sequence[str]) -> int:
    """Runs the check and returns the exit code: 0 where all that was run went well, else 1; 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python scripts/gpu_check.py", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--table", type=Path, metavar="FILE.md", help="write the table there")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS", help="for all, installing included")
    parser.add_argument("--only", default="", metavar="WORD", help="only parts with this in their names, as 'large'")
    parser.add_argument("--no-install", action="store_true", help="use the packages that are there")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU, to try this script")
    options = parser.parse_args(argv)
    wanted = [part for part in parts(tiny=options.tiny) if options.only in part.title]
    if not wanted:
        parser.error(f"--only {options.only}: no part has it; there are {'; '.join(part.title for part in parts())}")
    for option, path in (("--json", options.json), ("--table", options.table)):
        if path and not path.absolute().parent.is_dir():
            parser.error(f"{option} {path}: there is no folder {path.parent}; make it first")
    began = time.monotonic()
    cuda = cuda_version()
    python, notes = prepare(jax_extra(cuda), install=not options.no_install, seconds=_INSTALLING * options.budget)
    if cuda and not jax_extra(cuda):
        notes.append(f"the driver runs CUDA {cuda[0]}.{cuda[1]}, and jax needs 12.0 or later: update the driver")
    for note in notes:
        _say(note)
    rows = check(wanted, python, began + options.budget, _say)
    report = {
        "check": "gpu",
        "machine": _describe(rows, cuda),
        "notes": notes,
        "seconds": time.monotonic() - began,
        "rows": rows,
    }
    table = render(report)
    print(table)
    if options.table:
        options.table.write_text(table + "\n", encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["status"] == "ok" for row in rows) else 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
