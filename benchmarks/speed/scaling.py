"""Scaling to many devices: computed from sizes and link speeds, beside what a compiled step sends."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed.contest import Contender, run
from bertjax.config import BertConfig, Config
from bertjax.config.recipes import flat, save_config
from bertjax.models.bert import num_parameters
from bertjax.models.operations import FORWARD_AND_BACKWARD, encoder_operations, head_operations

VOCABULARY = 30_528  # BERT's own 30,522, and as many empty rows as let 32 devices share them
ROWS, TOKENS, PREDICTIONS = 32, 512, 77  # of each device's part of a batch, however many devices there are
REACHED = 0.4  # of the peak, by what one device does alone
DEVICES = (8, 64, 256, 1024)
MESHES = ([8, 1, 1], [1, 8, 1], [2, 4, 1], [2, 1, 4], [2, 2, 2])  # of the simulated devices
_NUMBER = 4  # bytes: parameters, gradients and both of Adam's means are float32


class Machine(NamedTuple):
    """Speeds as the makers publish them, of one device: operations a second, and bytes a second sent one way."""

    name: str
    bf16_flops: float
    node: int  # devices that the fast links join
    fast: float
    slow: float  # between such groups


MACHINES = (
    # 900 GB/s of NVLink count both ways; one 400 Gb/s adapter of InfiniBand a GPU.
    Machine("H100", 989e12, node=8, fast=450e9, slow=50e9),
    # 1,600 Gb/s of links between chips, which rings over both axes of the torus use; 6.4 Tb/s for a pod's 256 chips.
    Machine("TPU v5e", 197e12, node=256, fast=200e9, slow=3.1e9),
)
FORMULAE = f"""\
Computed, for {ROWS} rows of {TOKENS} tokens with {PREDICTIONS} predictions on each device, a vocabulary of \
{VOCABULARY:,}, bfloat16 products at {REACHED:.0%} of the peak, and float32 gradients. P is the bytes of the \
parameters, n the devices that fast links join, m such groups.

- step = operations / ({REACHED} x peak), operations being 3 x those of the forward pass's matrix products
- fast = 2 P (n - 1) / n bytes a device: reduce-scatter of gradients, all-gather of parameters or of sums
- slow = 2 P / n x (m - 1) / m bytes a device: all-reduce of its share between the groups
- efficiency = step / (step + fast / speed + slow / speed) where nothing overlaps; step / the longest where all does
- holds = 4 P on each device with `data` alone (parameters, gradients, Adam's two means), 4 P / 8 with `fsdp: 8`

As much is sent with `data: -1` and with `data: -1, fsdp: 8`; with `train.remat` the latter gathers again: fast x 1.5. \
The gradient of a tied vocabulary is sent twice, from the embeddings and from the head, which P here leaves out."""


def measure(config: Config, folder: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> dict[str, Any]:
    """Returns a report: bytes sent in a compiled step of the recipe on 8 simulated devices, and the computed table."""
    model = dataclasses.replace(config.model, vocab_size=config.model.vocab_size or VOCABULARY)
    config = dataclasses.replace(config, model=model)
    save_config(config, folder / "config.yaml")
    simulated = {**environment, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    meshes = [mesh for mesh in MESHES if config.model.num_heads % mesh[2] == 0]
    say(f"compiling a step for each of {len(meshes)} meshes")
    arguments = {"config": str(folder / "config.yaml"), "meshes": meshes}
    return {
        "bench": "scaling",
        "recipe": flat(config),
        "parameters": num_parameters(model),
        "sent": run(Contender("communicate", arguments, simulated))["sent"],
        "scaling": [
            expected(name, machine, devices)
            for machine in MACHINES
            for name in ("base", "large")
            for devices in DEVICES
        ],
    }


def expected(name: str, machine: Machine, devices: int) -> dict[str, Any]:
    """Returns what FORMULAE give for `base` or `large` on so many devices."""
    model: BertConfig = getattr(BertConfig, name)(VOCABULARY)
    parameters = num_parameters(model) * _NUMBER
    sizes: dict[str, Any] = {
        "hidden": model.hidden_size,
        "layers": model.num_layers,
        "intermediate": model.intermediate_size,
    }
    operations = encoder_operations(np.full(ROWS, TOKENS), **sizes)
    operations += head_operations(ROWS * PREDICTIONS, ROWS, hidden=model.hidden_size, vocabulary=VOCABULARY)
    step = FORWARD_AND_BACKWARD * operations / (REACHED * machine.bf16_flops)
    near = min(devices, machine.node)
    groups = devices // near
    fast = 2 * parameters * (near - 1) / near
    slow = 2 * parameters / near * (groups - 1) / groups
    fast_seconds, slow_seconds = fast / machine.fast, slow / machine.slow
    return {
        "machine": machine.name,
        "model": name,
        "devices": devices,
        "step_seconds": step,
        "fast_bytes": fast,
        "slow_bytes": slow,
        "least_efficiency": step / (step + fast_seconds + slow_seconds),
        "most_efficiency": step / max(step, fast_seconds, slow_seconds),
        "pairs_per_second": devices * ROWS / (step + fast_seconds + slow_seconds),
        "held_bytes": 4 * parameters,
    }


def render(report: dict[str, Any]) -> str:
    """Two tables in Markdown."""
    config, parameters = report["recipe"], report["parameters"]
    lines = [
        f"Sent in a step by each of 8 simulated devices, MB, from the compiled program: {config['model.num_layers']} "
        f"layers, {config['model.hidden_size']} hidden, {parameters:,} parameters "
        f"({parameters * _NUMBER / 1e6:,.0f} MB), {config['train.batch_size']} rows of {config['data.max_length']} "
        "tokens in all. XLA for CPUs has no reduce-scatter: with `fsdp` it all-reduces gradients, which sends twice "
        "as much, and cuts them.",
        "",
        "| data | fsdp | tensor | all-reduce | all-gather | other | together |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for sent in report["sent"]:
        kinds = {kind: size / 1e6 for kind, size in sent.items() if kind != "mesh"}
        reduced, gathered = kinds.pop("all-reduce"), kinds.pop("all-gather")
        figures = (reduced, gathered, sum(kinds.values()), reduced + gathered + sum(kinds.values()))
        lines.append(_row(*sent["mesh"], *(f"{figure:,.1f}" for figure in figures)))
    heads = ("", "model", "devices", "step, ms", "fast, MB", "slow, MB", "efficiency", "pairs/s at least", "holds, GB")
    lines += ["", FORMULAE, "", _row(*heads), "|---|---|" + "---:|" * (len(heads) - 2)]
    for row in report["scaling"]:
        lines.append(
            _row(
                row["machine"],
                row["model"],
                f"{row['devices']:,}",
                f"{row['step_seconds'] * 1e3:.1f}",
                f"{row['fast_bytes'] / 1e6:,.0f}",
                f"{row['slow_bytes'] / 1e6:,.0f}",
                f"{row['least_efficiency']:.0%}-{row['most_efficiency']:.0%}",
                f"{row['pairs_per_second']:,.0f}",
                f"{row['held_bytes'] / 1e9:.2f} or {row['held_bytes'] / 8e9:.2f}",
            )
        )
    return "\n".join(lines)


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
