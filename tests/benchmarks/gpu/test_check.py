"""A GPU check tells of every part, whatever becomes of it: with programs in place of parts, and once in earnest."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import check
from benchmarks.gpu import parts as gpu_parts
from benchmarks.gpu.check import Part, main, parts, render, run_part
from bertjax.config import Config
from bertjax.config.recipes import load_config

PART = Part("a part", "gpu_steps", {})


@pytest.fixture
def program(tmp_path: Path):
    """Makes a program that does so, whatever its arguments; it stands for Python."""

    def make(*lines: str) -> str:
        file = tmp_path / "program"
        file.write_text("\n".join(["#!/bin/sh", *lines]))
        file.chmod(0o755)
        return str(file)

    return make


def run(program: str, seconds: float = 60) -> check.Row:
    return run_part(PART, program, os.environ, seconds)


def test_a_part_that_ends_well_gives_its_figures(program) -> None:
    row = run(program("echo said by a library", "echo '{\"tokens_per_second\": 7}'"))
    assert (row["part"], row["status"], row["tokens_per_second"]) == ("a part", "ok", 7)


def test_a_part_that_fails_says_why(program) -> None:
    lines = ("ValueError: out of memory", "For simplicity, JAX has removed its internal frames.")
    row = run(program(*(f"echo '{line}' >&2" for line in lines), "exit 1"))
    assert row["status"] == "failed: ValueError: out of memory"
    assert run(program("echo words alone >&2", "exit 1"))["status"] == "failed: words alone"
    assert run(program("kill -SEGV $$"))["status"] == "failed: code -11"
    assert run(program("echo no figures"))["status"] == "failed: it ended without figures"


def test_a_part_over_its_time_is_stopped_with_all_that_it_started(program, tmp_path: Path) -> None:
    began = time.monotonic()
    row = run(program(f"(sleep 2; touch {tmp_path}/late) &", "sleep 60"), seconds=1)
    assert row["status"] == "stopped after 1 s" and time.monotonic() - began < 30
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_what_the_budget_leaves_no_time_for_is_not_run(program) -> None:
    said: list[str] = []
    quick = program("echo '{}'")
    rows = check.check([PART, PART], quick, time.monotonic() + 60, said.append)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    rows = check.check([PART, PART], quick, time.monotonic() + 1, said.append)
    assert [row["status"] for row in rows] == ["not run", "not run"] and said[-1].startswith("a part: not run")


def test_the_table_tells_of_every_part() -> None:
    rows = [
        {"part": "one", "status": "ok", "tokens_per_second": 123456.7, "share_of_peak": 0.4321, "note": "a note"},
        {"part": "two", "status": "failed: a | b", "device_memory_bytes": 2**31},
    ]
    lines = render({"machine": "m", "notes": ["missing: x"], "seconds": 9.0, "rows": rows}).splitlines()
    assert lines[:2] == ["m; 9 s in all.", "missing: x"]
    assert lines[-2] == "| one | 123,457 |  | 43.2% |  |  | a note |"
    assert lines[-1] == "| two |  |  |  | 2.0 |  | failed: a \\| b |"


def test_every_part_has_a_recipe_that_is_possible() -> None:
    for part in [*parts(), *parts(tiny=True)]:
        load_config(part.arguments["recipe"], part.arguments["overrides"])
        lengths = part.arguments.get("lengths")
        assert lengths is None or part.title.endswith(f"of {sum(lengths)}") or sum(lengths) == 32
    assert len({part.title for part in parts()}) == len(parts())


def test_a_mistake_is_told_before_anything_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, message in (
        (["--only", "huge"], "--only huge: no part has it; there are base, 512, cudnn; "),
        (["--json", str(tmp_path / "none" / "x.json")], "there is no folder"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(argv)
        assert message in capsys.readouterr().err


@pytest.fixture
def of_this_text(wikitext: Path) -> Callable[[Part], Part]:
    """Lets a part of the tiny recipe read this instead of Python's own docs."""

    def change(part: Part) -> Part:
        overrides = [f"data.path={wikitext}", "data.source=wikitext-2", "tokenizer.min_frequency=1"]
        return part._replace(arguments=part.arguments | {"overrides": [*part.arguments["overrides"], *overrides]})

    return change


def test_a_check_in_earnest(of_this_text: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """With the parts that want a process of their own; the others are called below."""
    import jax

    there = [of_this_text(part) for part in parts(tiny=True) if part.title in ("tiny, cudnn", "textbook")]
    monkeypatch.setattr(check, "parts", lambda tiny: there)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    files = ["--json", str(tmp_path / "gpu.json"), "--table", str(tmp_path / "gpu.md")]
    assert main(["--tiny", "--no-install", "--budget", "1000", *files]) == 1  # there is no cuDNN here
    rows = {row["part"]: row for row in json.loads((tmp_path / "gpu.json").read_text())["rows"]}
    assert [part for part, row in rows.items() if row["status"] != "ok"] == ["tiny, cudnn"]
    assert rows["tiny, cudnn"]["status"].startswith("failed: model.attention=cudnn needs an NVIDIA GPU")
    assert rows["textbook"]["tokens_per_second"] > 0
    assert (tmp_path / "gpu.md").read_text() == capsys.readouterr().out


def test_a_run_that_is_killed_is_compared_with_one_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what has its own tests; here it is a stand-in, for it starts four runs."""
    asked: list[Any] = []

    def torture(config: Config, folder: Path, environment: dict[str, str], say: Any, **settings: int) -> dict[str, Any]:
        asked.append((config.train.steps, folder.is_dir(), settings))
        assert str(Path(check.__file__).parents[2]) in environment["PYTHONPATH"]
        return {"hits": {"starting": 0, "in a step": 1}, "differences": found}

    monkeypatch.setattr("benchmarks.stress.torture.torture", torture)
    (arguments,) = [part.arguments for part in parts(tiny=True) if part.title == "kill and resume"]
    for found, told in (([], "equal, bit for bit"), (["params/a differs", "step differs"], "params/a differs; step")):
        row = gpu_parts.resume(**arguments)
        assert row["differences"] == found and row["note"].startswith(f"killed in a step; resumed: {told}")
    assert asked == [(8, True, {"kills": 1, "seed": 0})] * 2


def test_the_parts_that_only_compute(of_this_text: Callable, devices: Callable) -> None:
    devices(1)
    of = {part.title: of_this_text(part).arguments for part in parts(tiny=True)}
    assert gpu_parts.steps(**of["tiny, packed rows, xla"])["tokens_per_second"] > 0
    encoded = gpu_parts.encode(**of["tiny, encode"])
    assert encoded["tokens_per_second"] > 0 and encoded["least_cosine"] > 0.999
    assert 0 < gpu_parts.precision(**of["tiny, bf16 and float32"])["greatest_relative_difference"] < 0.01
