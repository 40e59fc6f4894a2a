"""A race that is won, one that is not, and what is told of both."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stand_ins import start_no_process

from benchmarks.__main__ import main
from benchmarks.learning import command, speedrun
from benchmarks.learning.speedrun import race, render
from bertjax.config import Config, EvalConfig
from bertjax.config.recipes import flat
from bertjax.runs.folder import RunFolder
from bertjax.train import loop
from bertjax.train.pretrain import pretrain


def options(config: Config) -> list[str]:
    return [f"--{key}={'null' if value is None else value}" for key, value in flat(config).items()]


def test_a_race_is_the_run_that_it_would_be(tiny: Config, devices: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    devices(2)
    monkeypatch.setattr(speedrun, "make_programs", loop.make_programs)  # those that tests share
    train = dataclasses.replace(tiny.train, batch_warmup_steps=2)  # to batches of 8, from 2
    config = dataclasses.replace(tiny, train=train, eval=EvalConfig(every=2))
    lines = RunFolder(pretrain(config)).metrics.read()
    expected = {line["step"]: line["held_out_mlm_loss"] for line in lines if "held_out_mlm_loss" in line}
    said: list[str] = []
    lost = race(config, 0.1, time.time(), said.append)
    assert lost["losses"] == pytest.approx(expected, rel=1e-5) and len(said) == 2 and not lost["reached"]
    assert (lost["steps"], lost["pairs"]) == (4, 22) and render(lost).startswith("NOT REACHED: held-out MLM loss 0.1;")
    won = race(config, expected[2] + 0.001, time.time() - 100, said.append)
    assert won["reached"] and won["steps"] == 2 and "2 steps, 6 pairs, on 2 x cpu" in render(won)
    assert 100 < won["start_up_seconds"] < 160 and 0 < won["training_seconds"] < 10 and won["evaluation_seconds"] > 0


def test_exit_codes_and_figures(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """The run that fails has a process of its own, as every one has."""
    file = tmp_path / "race.json"
    with monkeypatch.context() as patched:
        start_no_process(patched, command)
        assert main(["speedrun", *options(tiny), "--target", "0.1", "--json", str(file)]) == 1
    out, err = capfd.readouterr()
    assert "NOT REACHED: held-out MLM loss 0.1; the best was 2." in out and "in 4 steps" in out and err == ""
    assert json.loads(file.read_text())["losses"].keys() == {"4"}
    for wrong, message in (
        (["--target", "0"], "--target 0.0 is no loss"),
        (["--target", "3", "--json", str(file)], "exists and is left"),
        (["--target", "3", "--init_from", "x"], "init_from=x"),
        (["--target", "3", "--data.path", str(tmp_path / "none")], "none is not a folder"),
        ([], "target"),
    ):
        assert main(["speedrun", *options(tiny), *wrong]) == 2
        out, err = capfd.readouterr()
        assert message in err and err.count("\n") == 1 and out == ""
