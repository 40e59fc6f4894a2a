"""Bytes that devices send each other in a training step, read from the compiled program."""

import math
import re
from collections import defaultdict
from typing import Any, NamedTuple

import jax
import numpy as np

from bertjax.config import Config
from bertjax.config.recipes import load_config
from bertjax.data.batching.batch import Batch
from bertjax.models.bert import make_model
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.sharding import by_name, make_mesh, with_sharding
from bertjax.train.optimizer import make_optimizer, make_schedule
from bertjax.train.state import state_template
from bertjax.train.step import compile_train_step

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_COLLECTIVE = re.compile(rf" = (.+?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:body|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")


class Collective(NamedTuple):
    """One operation of a program, in which groups of devices take part."""

    kind: str
    size: int  # bytes of the result on a device
    group: int  # devices
    times: int  # a step

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step when the group is a ring: the least that any way needs.

        With g devices: all-reduce 2 (g - 1) / g of its result, all-gather and all-to-all (g - 1) / g of it,
        reduce-scatter g - 1 times it, collective-permute all of it.
        """
        g = self.group
        share = {"all-reduce": 2 * (g - 1) / g, "reduce-scatter": g - 1, "collective-permute": 1}
        return self.times * self.size * share.get(self.kind, (g - 1) / g)


def collectives(program: str) -> list[Collective]:
    """Returns the collectives of an XLA program, `compiled.as_text()`.

    A loop's count as often as it goes round. Where the program does not tell, once: of ours that is the loop over the
    blocks of the vocabulary's head, which talks only where `tensor` splits the vocabulary, 12 bytes a prediction.
    """
    computations, entry = _computations(program)
    times: dict[str, int] = defaultdict(int)

    def visit(name: str, often: int) -> None:
        times[name] += often
        for line in computations[name]:
            rounds = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            for called in _CALLED.findall(line):
                visit(called, often * (int(rounds[1]) if rounds else 1))
            if branches := re.search(r"branch_computations=\{(.*?)\}", line):
                for called in branches[1].split(","):
                    visit(called.strip().lstrip("%"), often)

    visit(entry, 1)
    found = []
    for name, lines in computations.items():
        for line in lines:
            if match := _COLLECTIVE.search(line):
                # Their results hold the operands too: read as if they did not, the figures would be wrong.
                assert not match[3], f"asynchronous collectives are not read: {line.strip()[:100]}"
                group = 2 if match[2] == "collective-permute" else _group(line)
                found.append(Collective(match[2], _bytes(match[1]), group, times[name]))
    return found


def _computations(program: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of each computation, and the name of the one that is run."""
    computations: dict[str, list[str]] = {}
    name = entry = ""
    for line in program.splitlines():
        if not line.startswith(" ") and (begin := _COMPUTATION.match(line)):
            name = begin[1]
            computations[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif name:
            computations[name].append(line)
    return computations, entry


def _bytes(shapes: str) -> int:
    """Returns the bytes of a type such as `(f32[16]{0}, /*index=1*/pred[])`."""
    sizes = [(int(bits or 8), dimensions) for _, bits, dimensions in _ARRAY.findall(shapes)]
    return sum(bits * math.prod(int(size) for size in dimensions.split(",") if size) for bits, dimensions in sizes) // 8


def _group(line: str) -> int:
    """Returns the devices in a group, in any of XLA's three ways to write groups."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(listed[1].split(","))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
        return int(iota[1])
    over = re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{('[\w', ]+)\}", line)
    assert over, f"groups written in an unknown way: {line.strip()[:200]}"
    sizes = {name: int(size) for name, size in re.findall(r"('\w+')=(\d+)", over[1])}
    return math.prod(sizes[axis.strip()] for axis in over[2].split(","))


def communicate(*, config: str, meshes: list[list[int]]) -> dict[str, Any]:
    """Returns bytes that each device sends in a step, by mesh and kind. Steps are compiled, none is run."""
    recipe = load_config(config)
    return {"sent": [{"mesh": mesh, **_sent(step_collectives(recipe, *mesh))} for mesh in meshes]}


def _sent(found: list[Collective]) -> dict[str, float]:
    return {kind: sum(one.sent for one in found if one.kind == kind) for kind in KINDS}


def step_collectives(config: Config, data: int, fsdp: int, tensor: int) -> list[Collective]:
    """Returns the collectives of the recipe's training step on the first devices, with a pair in every row."""
    mesh = make_mesh(data, fsdp, tensor, devices=jax.devices()[: data * fsdp * tensor])
    objective = pretraining_objective(make_model(config.model, config.train).clone(mesh=mesh))
    optimizer = make_optimizer(config.optim, config.train.steps)
    schedule = make_schedule(config.optim, config.train.steps)
    step: Any = compile_train_step(
        mesh,
        objective,
        optimizer,
        schedule,
        gradient_accumulation_steps=config.train.parts,
    )
    state = state_template(objective, optimizer)
    state = with_sharding(state, by_name(state, mesh))
    predictions = max(1, round(config.data.mlm_probability * config.data.max_length))
    batch = batch_shapes(config.train.batch_size, config.data.max_length, predictions)
    return collectives(step.lower(state, batch, 0).compile().as_text())


def batch_shapes(rows: int, tokens: int, predictions: int) -> Batch:
    """Returns the shapes and dtypes of a batch of one pair a row."""

    def shapes(width: int, *dtypes: type) -> list[Any]:
        return [jax.ShapeDtypeStruct((rows, width), dtype) for dtype in dtypes]

    integers = (np.int32, np.int32)
    return Batch(
        *shapes(tokens, *integers, *integers),
        *shapes(predictions, *integers, np.float32),
        *shapes(1, *integers, np.float32),
    )
