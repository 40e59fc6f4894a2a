"""`python -m benchmarks profile`: where the time of a training step goes on a CPU, and what the machine allows."""

import glob
import math
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.environment import with_checkout
from benchmarks.speed import table
from benchmarks.speed.benches import describe_model
from benchmarks.speed.ceiling import measure_ceiling
from benchmarks.speed.contest import Contender, take_turns
from benchmarks.speed.finetune import with_films
from bertjax.config import Config
from bertjax.config.recipes import load_config, save_config
from bertjax.errors import BertjaxError
from bertjax.inference.pretrained import model_config

_WARM, _STEPS = 3, 20
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}  # others have four
# What is no product, by the part of the model that it is of: the first pattern in the name that JAX gives it. Dropout's
# masks are computed inside the instructions of what they drop.
_PARTS = (
    ("keys of dropout", r"random_bits|threefry"),
    ("norms", r"LayerNorm|RMSNorm|_norm/"),
    ("softmax and masks of attention", r"/attention/|/attention_"),
    ("activation and bias inside the feed-forward layer", r"/ffn/"),
    ("residuals", r"/Block/"),
    ("embeddings", r"/embeddings/"),
    ("heads and loss", r"jvp\("),
)
_CONTAINERS = ("conditional", "while", "call")
_LEAST = 0.005  # of the step: what takes less is shown together
_OPTIMISER = "optimiser and the gradient's norm"


class Instruction(NamedTuple):
    """One of a compiled program that runs by itself."""

    kind: str
    operations: int  # of products
    num_bytes: int  # read and written, each operand once


def profile(*, config: str, overrides: list[str], steps: int) -> dict[str, Any]:
    """Runs training steps in one thread, where what each instruction takes is its own, and adds up what they took."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from benchmarks.speed.ours import training_in_progress

    if (platform := jax.default_backend()) != "cpu":
        raise BertjaxError(f"profile is of CPUs, and this is a {platform}; scripts/gpu_check.py profiles a GPU")
    ceiling, recipe = measure_ceiling(), load_config(config, overrides)
    training = training_in_progress(recipe, _WARM)
    with tempfile.TemporaryDirectory(prefix="bertjax-trace-") as folder:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        with jax.profiler.trace(folder, profiler_options=options):
            seconds = sum(training.go_on(steps))
        took = self_seconds(_events(Path(folder)))
    rate = ceiling["bf16_flops" if recipe.train.precision == "bfloat16" else "float32_flops"]
    rows = add_up(
        took, instructions(training.program), rate=rate, bandwidth=ceiling["copy_bytes_per_second"], steps=steps
    )
    rows["waiting, XLA's own work and the host's"] = {
        "seconds": max(0.0, seconds / steps - sum(row["seconds"] for row in rows.values())),
        "bound_seconds": 0.0,
        "times": 0,
    }
    return {
        "seconds": seconds / steps,
        "rows": dict(sorted(rows.items(), key=lambda item: -item[1]["seconds"])),
        "ceiling": ceiling,
    }


def _events(folder: Path) -> list[list[tuple[str, float, float]]]:
    """Returns of each thread of XLA what it ran: name, beginning and end in nanoseconds."""
    (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
    lines = [line for plane in jax.profiler.ProfileData.from_file(path).planes for line in plane.lines]
    return [
        [(event.name, event.start_ns, event.start_ns + event.duration_ns) for event in line.events]
        for line in lines
        if line.name.startswith("tf_")
    ]


def self_seconds(threads: Iterable[list[tuple[str, float, float]]]) -> dict[str, tuple[float, int]]:
    """Returns the seconds that each name took without what ran inside it, and how many times it ran.

    Args:
      threads: of each the name, beginning and end of what it ran, in nanoseconds; these nest, and do not overlap.
    """
    took: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def add(name: str, nanoseconds: float, times: int) -> None:
        took[name] = took[name][0] + nanoseconds / 1e9, took[name][1] + times

    for events in threads:
        open_events: list[tuple[str, float]] = []  # with their ends
        for name, start, end in sorted(events, key=lambda event: (event[1], -event[2])):
            while open_events and open_events[-1][1] <= start:
                open_events.pop()
            if open_events:
                add(open_events[-1][0], start - end, 0)
            add(name, end - start, 1)
            open_events.append((name, end))
    return dict(took)


def add_up(
    took: Mapping[str, tuple[float, int]],
    known: Mapping[str, Instruction],
    *,
    rate: float,
    bandwidth: float,
    steps: int,
) -> dict[str, dict[str, Any]]:
    """Returns for each kind of instruction seconds of a step, those that the machine allows, and how many there are.

    Args:
      took: seconds and times by instruction, of all steps.
      known: instructions of the program.
      rate: of products, operations a second.
      bandwidth: of memory, bytes read and written a second.
      steps: that were run.
    """
    rows: dict[str, dict[str, Any]] = defaultdict(lambda: {"seconds": 0.0, "bound_seconds": 0.0, "times": 0})
    for name, (seconds, times) in took.items():
        if name in known:
            row, one = rows[known[name].kind], known[name]
            row["seconds"] += seconds / steps
            row["bound_seconds"] += max(one.operations / rate, one.num_bytes / bandwidth) * times / steps
            row["times"] += times / steps
    return dict(rows)


def instructions(text: str) -> dict[str, Instruction]:
    """Returns the instructions of a program, by name.

    Args:
      text: the program as XLA prints it.
    """
    shapes: dict[str, str] = {}
    parsed: dict[str, tuple[str, str, str]] = {}  # shape, operation, and the rest of the line
    inside: dict[str, list[str]] = defaultdict(list)  # of a computation, names of its instructions
    computation = ""
    for line in text.splitlines():
        if found := re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            computation = found[1]
        elif found := re.match(r"\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)", line):
            name, shape, operation, rest = found.groups()
            shapes[name], parsed[name] = shape, (shape, operation, rest)
            inside[computation].append(name)

    def operands(rest: str) -> list[str]:
        return [shapes[name] for name in re.findall(r"%([\w.-]+)", rest.split("), ")[0]) if name in shapes]

    def products(name: str) -> list[tuple[int, str]]:
        shape, operation, rest = parsed[name]
        if operation == "dot":
            return [_product(shape, operands(rest), rest)]
        called = re.search(r"calls=%?([\w.-]+)", rest) if operation == "fusion" else None
        return [one for inner in inside[called[1]] for one in products(inner)] if called else []

    found_instructions = {}
    for name, (shape, operation, rest) in parsed.items():
        if operation in ("parameter", "constant", "tuple", "get-tuple-element", "bitcast"):
            continue
        # What a branch or a loop is given, the instructions inside it read.
        num_bytes = 0 if operation in _CONTAINERS else sum(map(_bytes, [shape, *operands(rest)]))
        multiplied = products(name)
        kind = " and ".join(sorted({kind for _, kind in multiplied})) or _part(operation, rest)
        found_instructions[name] = Instruction(kind, sum(operations for operations, _ in multiplied), num_bytes)
    return found_instructions


def _product(shape: str, operands: list[str], rest: str) -> tuple[int, str]:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
    batched = re.search(r"lhs_batch_dims=\{([\d,]*)\}", rest)
    left = _dims(operands[0])
    inner = math.prod(left[int(axis)] for axis in contracted[1].split(",") if axis) if contracted else 1
    batch = math.prod(left[int(axis)] for axis in batched[1].split(",") if axis) if batched else 1
    rows = math.prod(left) // (inner * batch)
    columns = math.prod(_dims(shape)) // (rows * batch)
    times = f"{batch} x " if batch > 1 else ""
    return 2 * math.prod(_dims(shape)) * inner, f"products {times}[{rows}, {inner}] [{inner}, {columns}]"


def _part(operation: str, rest: str) -> str:
    name = re.search(r'op_name="([^"]*)"', rest)
    if name is None or operation in ("copy", "transpose"):
        return "copies and changes of layout"
    if "jvp(" not in name[1] and not re.search(_PARTS[0][1], name[1]):
        return _OPTIMISER
    return next((part for part, pattern in _PARTS if re.search(pattern, name[1])), _PARTS[-1][0])


def _dims(shape: str) -> list[int]:
    found = re.match(r"\w+\[([\d,]*)\]", shape)
    return [int(size) for size in found[1].split(",") if size] if found else []


def _bytes(shape: str) -> int:
    """Returns the bytes of an array, or of a tuple of them."""
    arrays = re.findall(r"(\w+)(\[[\d,]*\])", shape)
    return sum(_BYTES.get(dtype, 4) * math.prod(_dims(dtype + dims)) for dtype, dims in arrays)


def measure(
    config: Config, folder: Path, environment: Mapping[str, str], say: Callable[[str], None], *, steps: int = _STEPS
) -> dict[str, Any]:
    """Runs the profile in a process of its own and returns the report."""
    if config.task.kind != "pretrain":
        config, _ = with_films(config)
    model = config.model if config.init_from is None else model_config(config.init_from)
    save_config(config, folder / "config.yaml")
    arguments = {"config": str(folder / "config.yaml"), "overrides": [], "steps": steps}
    contender = Contender("profile", arguments, dict(with_checkout(environment)))
    (figures,) = take_turns({"profile": contender}, 1, say)["profile"]
    return {"machine": table.describe_machine([]), "model": describe_model(model), "steps": steps} | figures


def _with_few_rows(rows: Mapping[str, dict[str, Any]], seconds: float) -> dict[str, dict[str, Any]]:
    shown = {kind: row for kind, row in rows.items() if row["seconds"] >= _LEAST * seconds}
    hidden = [row for kind, row in rows.items() if kind not in shown]
    return shown | {"all else": {key: sum(row[key] for row in hidden) for key in next(iter(rows.values()))}}


def render(report: Mapping[str, Any]) -> str:
    """Returns the table: milliseconds of a step, their share, and what the machine allows at best."""
    cells = [["", "ms a step", "share", "at best, ms", "of that", "times"]]
    for kind, row in _with_few_rows(report["rows"], report["seconds"]).items():
        of_bound = row["bound_seconds"] / row["seconds"] if row["seconds"] else 0.0
        cells.append(
            [
                kind,
                f"{row['seconds'] * 1e3:.1f}",
                table.share(row["seconds"] / report["seconds"]),
                f"{row['bound_seconds'] * 1e3:.1f}" if row["bound_seconds"] else "-",
                table.share(of_bound) if row["bound_seconds"] else "-",
                f"{row['times']:.0f}" if row["times"] else "-",
            ]
        )
    ceiling = report["ceiling"]
    head = (
        f"{report['machine']['processor']}, one core: {ceiling['float32_flops'] / 1e9:,.0f} GFLOP/s in float32, "
        f"{ceiling['bf16_flops'] / 1e9:,.0f} in bf16, {ceiling['copy_bytes_per_second'] / 1e9:,.1f} GB/s; "
        f"{report['seconds'] * 1e3:,.0f} ms a step, {report['steps']} steps"
    )
    return "\n".join([head, report["model"], "", *table.aligned(cells)])
