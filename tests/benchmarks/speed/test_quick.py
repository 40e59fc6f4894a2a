"""The quick comparison with a kept profile: what it times, and what it calls moved."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import quick
from benchmarks.speed.command import run
from benchmarks.speed.contest import Spread
from bertjax.data.prepare import Prepared


def report(processor: str = "one", **costs: list[float]) -> dict[str, Any]:
    parts = {name: {"milliseconds": 3.0, "yardstick": "sort", "cost": cost} for name, cost in costs.items()}
    return {"machine": {"processor": processor}, "parts": parts}


@pytest.mark.parametrize(
    "now, before, expected",
    [
        (Spread(1.5, 1.4, 1.6), Spread(1.0, 0.9, 1.1), True),
        (Spread(0.7, 0.6, 0.8), Spread(1.0, 0.9, 1.1), True),
        (Spread(1.5, 1.05, 1.6), Spread(1.0, 0.9, 1.1), False),  # quartiles overlap
        (Spread(1.3, 1.29, 1.31), Spread(1.0, 0.99, 1.01), False),  # not by much
    ],
)
def test_moved_is_what_is_far_and_apart(now: Spread, before: Spread, expected: bool) -> None:
    assert quick.moved(now, before) is expected


def test_the_table_says_which_part_moved() -> None:
    before = report(step=[1.0, 0.9, 1.1], batches=[1.0, 0.9, 1.1])
    told = quick.render(report("other", step=[2.0, 1.9, 2.1], batches=[1.0, 0.9, 1.1], more=[1.0, 1.0, 1.0]), before)
    step, batches, more = told.splitlines()[1:4]
    assert step.split()[-2:] == ["x2.00", "slower"] and batches.split()[-1] == "x1.00" and more.split()[-1] == "new"
    assert "another processor (one; here other)" in told
    assert "another processor" not in quick.render(before, before)


def test_its_parts_run(prepared: Prepared) -> None:
    parts = dict(itertools.islice(quick._parts(prepared), 3))
    assert list(parts) == ["tokens of 256 texts", "20 batches of 64", "loss, float32"]
    for part in parts.values():
        figures = quick._figures(part, [(quick._seconds(part.run), 0.5)])
        assert figures["cost"][0] == pytest.approx(figures["milliseconds"] / 500) and figures["milliseconds"] > 0
    assert figures["share"] == pytest.approx(parts["loss, float32"].operations / 2**31 / figures["cost"][0])


def test_a_profile_is_kept_when_asked_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = set(quick.kept()["parts"])
    assert {"step, float32", "step, bfloat16", "the texts encoded"} <= kept
    monkeypatch.setattr(quick, "PROFILE", tmp_path / "quick.json")
    monkeypatch.setattr(quick, "measure", lambda *_, **__: report(step=[2.0, 1.9, 2.1]))
    assert run("quick", ["--keep"], {}) and json.loads((tmp_path / "quick.json").read_text()) == report(
        step=[2.0, 1.9, 2.1]
    )
    monkeypatch.setattr(quick, "measure", lambda *_, **__: report(step=[1.0, 0.9, 1.1]))
    capsys.readouterr()
    assert run("quick", [], {}) and "faster" in capsys.readouterr().out  # and it is no failure
