"""Runs of several seeds and settings: each is as if it were alone, and the table tells what came of them."""

import dataclasses
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from labelled_texts import but

from bertjax import finetune
from bertjax.cli.main import main
from bertjax.config import Config, OptimConfig
from bertjax.errors import BertjaxError
from bertjax.inference.pretrained import load
from bertjax.runs.folder import RunFolder
from bertjax.train import loop, programs
from bertjax.train.optimizer import rate_of
from bertjax.train.programs import Programs, shared_programs
from bertjax.train.run import Finished
from bertjax.train.sweep import sweep


def test_each_seed_is_as_if_it_were_alone_whatever_kills_it(
    small: Config, tmp_path: Path, kill: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The programs are made once; all seeds hold out the same examples, and give their best step by a task's figure."""
    small = but(small, task__eval=None, task__eval_share=0.25, checkpoint__every=2, eval__best="macro F1")
    made: list[Config] = []
    make = loop.make_programs  # which all tests share
    monkeypatch.setattr(programs, "make_programs", lambda config, *rest: made.append(config) or make(config, *rest))
    kill(but(small, run_dir=f"{small.run_dir}/seed-4", seed=4, task__split_seed=3), 3)
    (result,) = sweep(but(small, seed=3), seeds=2, resume=True)
    assert len(made) == 1
    assert result.seeds == [3, 4] and result.folders == [f"{small.run_dir}/seed-{seed}" for seed in (3, 4)]
    first, second = (RunFolder(folder) for folder in result.folders)
    assert first.digests() == second.digests()
    assert first.metrics.read() != second.metrics.read()
    for run, figures in zip((first, second), result.figures, strict=True):
        seen = run.metrics.values("macro F1")
        assert len(seen) >= 2 and figures["macro F1"] == max(seen.values())
    alone = but(small, run_dir=str(tmp_path / "alone"), seed=4, task__split_seed=3)
    jax.tree.map(np.testing.assert_array_equal, load(finetune(alone)).params, load(second.path).params)

    told = json.loads((Path(small.run_dir) / "seeds.json").read_text())["settings"][0]
    for name, figure in told["figures"].items():
        values = [run["figures"][name] for run in told["runs"]]
        assert values == [figures[name] for figures in result.figures]
        assert figure == {"mean": statistics.fmean(values), "deviation": statistics.stdev(values)}
    name, (mean, deviation) = next(iter(result.means.items()))
    assert f"{mean:.4f} ± {deviation:.4f}" in capsys.readouterr().out and name in told["figures"]


def test_learning_rates_share_one_program(small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given each run's own; `test_optimizer.py` holds what it makes of it to what a run alone does."""
    made: list[Any] = []

    def step_of(config: Config, objective: str, mesh: str, steps: int) -> Callable:
        made.append(steps)
        return lambda *given: given

    monkeypatch.setattr(programs, "make_programs", lambda config, *_: made.append(config) or Programs(*[None] * 5))
    monkeypatch.setattr(programs, "_compile_by_rate", step_of)
    make, rates = shared_programs(by_rate=True), []
    optim = OptimConfig("adamw", 0.01, schedule="linear", warmup_steps=4, clip_norm=1.0)
    for rate in (0.01, 0.003):
        config = but(small, seed=int(1000 * rate), optim=dataclasses.replace(optim, learning_rate=rate))
        step = make(config, "objective", "mesh").train_step(6)  # type: ignore[arg-type]
        assert step("state", "batch", 3) == ("state", "batch", 3, rate_of(config.optim, 6))  # type: ignore[arg-type]
        rates.append(rate_of(config.optim, 6))
    assert rates == [(0.01, 0.0025), (0.003, 0.00075)] and len(made) == 2 and made[1] == 6
    own = [but(config, optim__name="muon", optim__learning_rate=rate) for rate in (0.01, 0.003)]
    for config in own:  # whose other rates are in proportion to it
        make(config, "objective", "mesh")  # type: ignore[arg-type]
    assert made[2:] == own


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each run is to come to, by its folder's end; the configurations that were asked for, in order, are added."""
    told: dict[str, Any] = {"configs": []}

    def carry_out(config: Config, *_: Any, **__: Any) -> Finished:
        told["configs"].append(config)
        figures = next(what for end, what in told.items() if config.run_dir.endswith(end))
        Path(config.run_dir).mkdir(parents=True)
        if isinstance(figures, str):
            RunFolder(config.run_dir).metrics.append({"step": 1})
            raise BertjaxError(figures)
        return Finished(Path(config.run_dir), figures)

    monkeypatch.setattr("bertjax.train.sweep.carry_out", carry_out)
    return told


def test_a_grid_is_sorted_by_the_figure_that_chooses(
    small: Config, told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """By the first, or as eval.best says; what diverges is told, and not counted."""
    told |= {"learning_rate=0.1,train.epochs=2": {"accuracy": 0.5, "label_loss": 0.1}}
    told |= {"learning_rate=0.1,train.epochs=3": {"accuracy": 0.9, "label_loss": 0.3}}
    told |= {"learning_rate=0.2,train.epochs=2": "step 7 has no finite loss"}
    told |= {"learning_rate=0.2,train.epochs=3": {"accuracy": 0.7, "label_loss": 0.2}}
    grid = {"optim.learning_rate": [0.1, 0.2], "train.epochs": [2, 3]}
    results = sweep(small, grid=grid)
    assert [list(result.values.values()) for result in results] == [
        ["0.1", "3"],
        ["0.2", "3"],
        ["0.1", "2"],
        ["0.2", "2"],
    ]
    said = capsys.readouterr().out.splitlines()
    at = said.index("held out, the best accuracy first:")
    assert said[at + 1].split() == ["optim.learning_rate", "train.epochs", "runs", "accuracy", "label_loss"]
    assert said[at + 2].split() == ["0.1", "3", "1", "0.9000", "0.3000"]
    assert said[at + 5].split() == ["0.2", "2", "0", "-", "-"]
    assert said[at + 6].startswith("not counted: ") and said[at + 6].endswith("step 7 has no finite loss")
    configs = told["configs"]
    assert [(config.optim.learning_rate, config.train.epochs) for config in configs] == [
        (0.1, 2),
        (0.1, 3),
        (0.2, 2),
        (0.2, 3),
    ]

    Path(small.run_dir).rename(Path(small.run_dir).with_name("first"))
    by_loss = sweep(but(small, eval__best="label_loss"), grid=grid)
    assert [list(result.values.values()) for result in by_loss][:3] == [["0.1", "2"], ["0.2", "3"], ["0.1", "3"]]


def test_settings_by_the_command_line(
    small: Config, one_layer: Path, told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each value is checked before anything runs."""
    told |= {
        f"learning_rate={rate}/seed-{seed}": {"accuracy": float(rate) + seed}
        for rate in ("1e-3", "3e-3")
        for seed in (5, 6)
    }
    words = [
        "finetune",
        "--config=classify",
        f"--init_from={one_layer}",
        f"--run_dir={small.run_dir}",
        "--data.max_length=16",
    ]
    rates = ["--grid", "optim.learning_rate=1e-3,3e-3"]
    for wrong, reason in (
        ([*rates, "--grid", "optim.lr=1"], "there is no key optim.lr"),
        ([*rates, "--grid", "optim.name=adamw,sgd"], "optim.name: expected one of adam"),
        ([*rates, "--grid", "optim.freeze_layers=1,3"], "optim.freeze_layers=3 is above model.num_layers=1"),
        ([*rates, "--grid", "train.epochs=1,1"], "give each value once"),
        (["--grid", "train.epochs=1,"], "lacks a value"),
        (["--grid", "run_dir=a,b"], "the runs of a grid share run_dir"),
        (["--seeds", "0"], "seeds=0 is no number of runs"),
        (["--seeds", "many"], "--seeds: expected a whole number, got many"),
    ):
        assert main([*words, *wrong]) == 2
        assert reason in capsys.readouterr().err
    assert not told["configs"] and not Path(small.run_dir).exists()
    assert main([*words, *rates, "--seeds", "2", "--seed=5"]) == 0
    assert [(config.optim.learning_rate, config.seed) for config in told["configs"]] == [
        (1e-3, 5),
        (1e-3, 6),
        (3e-3, 5),
        (3e-3, 6),
    ]
    assert "3e-3                 2     5.5030 ± 0.7071" in capsys.readouterr().out

    RunFolder(small.run_dir).path.joinpath("config.yaml").write_text("seed: 1")
    assert main([*words, *rates]) == 2 and "is the folder of a single run" in capsys.readouterr().err
