"""Where a step's time goes: what took how long, and what of it is products, norms and the rest."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks.speed.profiling import Instruction, _events, add_up, instructions, profile, render, self_seconds
from bertjax.errors import BertjaxError


def test_what_ran_inside_counts_once() -> None:
    first = [("whole", 0, 100), ("part", 10, 30), ("inner", 15, 20), ("part", 40, 50), ("whole", 100, 130)]
    took = self_seconds([first, [("part", 0, 7)]])
    assert {name: (round(seconds * 1e9), times) for name, (seconds, times) in took.items()} == {
        "whole": (100 - 20 - 10 + 30, 2),
        "part": (20 - 5 + 10 + 7, 3),
        "inner": (5, 1),
    }


def test_seconds_are_of_a_step_and_the_bound_is_the_slower_of_products_and_memory() -> None:
    known = {"a": Instruction("products", 6_000, 8), "b": Instruction("norms", 0, 50), "c": Instruction("norms", 0, 10)}
    took = {"a": (4.0, 2), "b": (1.0, 2), "c": (3.0, 4), "ThunkExecutor": (9.0, 1)}
    rows = add_up(took, known, rate=3_000, bandwidth=100, steps=2)
    assert rows["products"] == {"seconds": 2.0, "bound_seconds": 2.0, "times": 1.0}
    assert rows["norms"] == {"seconds": 2.0, "bound_seconds": pytest.approx(0.5 + 2 * 0.1), "times": 3.0}


def test_instructions_of_a_program_have_kinds_operations_and_bytes() -> None:
    def step(weights_dk: jax.Array, inputs_bd: jax.Array, heads_hbd: jax.Array) -> tuple[jax.Array, jax.Array]:
        with jax.named_scope("attention"):
            scores = jnp.einsum("hbd,hcd->hbc", heads_hbd, heads_hbd)
        return inputs_bd @ weights_dk, scores

    arrays = [jnp.ones(shape) for shape in ((32, 48), (64, 32), (3, 64, 32))]
    found = instructions(jax.jit(step).lower(*arrays).compile().as_text())
    products = {one.kind: one for one in found.values() if one.operations}
    assert products["products [64, 32] [32, 48]"].operations == 2 * 64 * 32 * 48
    assert products["products [64, 32] [32, 48]"].num_bytes == 4 * (64 * 32 + 32 * 48 + 64 * 48)
    assert products["products 3 x [64, 32] [32, 64]"].operations == 2 * 3 * 64 * 32 * 64


def test_what_the_profiler_saw_is_of_the_program(tmp_path: Path) -> None:
    arrays = [jnp.ones((256, 256)), jnp.ones((256, 128))]
    program = (
        jax.jit(lambda a, b: jnp.tanh(jax.lax.cond(a.sum() > 0, jnp.exp, jnp.sin, a)) @ b).lower(*arrays).compile()
    )
    known = instructions(program.as_text())
    assert [name.split(".")[0] for name, one in known.items() if not one.num_bytes] == ["cond"]
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(3):
            jax.block_until_ready(program(*arrays))
    rows = add_up(self_seconds(_events(tmp_path)), known, rate=1e12, bandwidth=1e12, steps=3)
    product = rows["products [256, 256] [256, 128]"]
    assert product["times"] == 1 and product["seconds"] > 0
    assert product["bound_seconds"] == pytest.approx(2 * 256 * 256 * 128 / 1e12)


def test_what_takes_little_is_shown_together() -> None:
    row = {"seconds": 0.6, "bound_seconds": 0.3, "times": 4}
    little = {"seconds": 0.002, "bound_seconds": 0.0, "times": 1}
    report = {
        "machine": {"processor": "Some processor"},
        "model": "2 layers",
        "steps": 20,
        "seconds": 1.0,
        "rows": {"norms": row, "dropout": little, "copies": little},
        "ceiling": {"float32_flops": 1e11, "bf16_flops": 2e11, "copy_bytes_per_second": 1e10},
    }
    head, model, _, titles, norms, rest = render(report).splitlines()
    assert "Some processor, one core: 100 GFLOP/s in float32, 200 in bf16, 10.0 GB/s; 1,000 ms" in head
    assert model == "2 layers" and titles.split()[:3] == ["ms", "a", "step"]
    assert norms.split() == ["norms", "600.0", "60.0%", "300.0", "50.0%", "4"]
    assert rest.split() == ["all", "else", "4.0", "0.4%", "-", "-", "2"]


def test_an_accelerator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    with pytest.raises(BertjaxError, match="profile is of CPUs, and this is a gpu; scripts/gpu_check.py"):
        profile(config="none.yaml", overrides=[], steps=1)
