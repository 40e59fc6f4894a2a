"""Contenders take turns, ratios are of the same round, medians are medians."""

import subprocess
import sys

import pytest

from benchmarks.speed import contest
from benchmarks.speed.contest import Contender, ratios, run, spread, summarise, take_turns
from bertjax.errors import BertjaxError


def test_contenders_take_turns(monkeypatch):
    called = []

    def note(contender: Contender) -> dict:
        called.append(contender.worker)
        return {"seconds": len(called)}

    monkeypatch.setattr(contest, "run", note)
    said: list[str] = []
    runs = take_turns({"a": Contender("A", {}), "b": Contender("B", {})}, rounds=3, say=said.append)
    assert called == ["A", "B"] * 3 and said[:2] == ["round 1 of 3: a", "  seconds 1"] and len(said) == 12
    assert runs == {"a": [{"seconds": 1}, {"seconds": 3}, {"seconds": 5}], "b": [{"seconds": n} for n in (2, 4, 6)]}


def test_summary_has_median_ends_and_runs():
    runs = [{"x": 3.0, "name": "n"}, {"x": 1.0, "name": "n"}, {"x": 8.0, "name": "n"}]
    assert summarise(runs) == {"x": 3.0, "spread": {"x": [1.0, 8.0]}, "runs": runs}


def test_ratios_are_within_a_round():
    # The machine was half as fast in the second round: the ratio is the same, the quotient of medians would be too,
    # but not in the third, where only ours met a faster one.
    ours, theirs = [{"x": 4.0}, {"x": 2.0}, {"x": 9.0}], [{"x": 2.0}, {"x": 1.0}, {"x": 3.0}]
    assert ratios(ours, theirs) == {"x": {"median": 2.0, "low": 2.0, "high": 3.0}}


def test_ratios_leave_out_what_cannot_be_divided():
    assert ratios([{"x": 1.0, "y": 1.0, "z": "s"}], [{"x": 0.0, "z": "s", "w": 2.0}]) == {}


def test_spread_of_an_even_number():
    assert spread([4.0, 1.0]) == (2.5, 1.0, 4.0)


def test_failing_contender_is_one_line():
    with pytest.raises(BertjaxError, match="the contender nobody .* failed: ValueError: no contender nobody"):
        run(Contender("nobody", {}))


def test_bad_input_is_told_as_everywhere():
    with pytest.raises(BertjaxError, match="^there is no recipe 'nowhere'"):
        run(Contender("profile", {"config": "nowhere", "overrides": [], "steps": 1}))


def test_memory_is_the_contenders_own():
    ours = bytearray(b"x") * 2**28
    code = "from benchmarks.speed.worker import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**22 < int(done.stdout) < len(ours) / 2
