"""Whole runs of several seeds are compared seed by seed."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.learning import finetune
from benchmarks.speed.contest import Contender
from bertjax.cli.main import main
from bertjax.config import Config
from bertjax.config.recipes import flat, load_config
from bertjax.errors import BertjaxError


def test_each_seed_is_a_run_of_ours_and_one_of_the_peer(classify: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours by the commands, which are called here instead of started."""
    monkeypatch.setattr(finetune, "_run", lambda argv, _: main([*argv]))
    peers: list[tuple[str, int]] = []

    def peer(contender: Contender) -> dict[str, float]:
        recipe = load_config(Path(contender.arguments["config"]))
        peers.append((recipe.task.train or "", contender.arguments["seed"]))
        return {"accuracy": 0.25, "examples_per_second": 40.0, "seconds": 3.0}

    monkeypatch.setattr(finetune, "run", peer)
    report = finetune.compare(classify, 2, os.environ, lambda line: None, peers=True)
    assert [(run["contender"], run["seed"]) for run in report["runs"]] == [
        (name, seed) for seed in (0, 1) for name in ("ours", "trainer_grouped_float32")
    ]
    assert peers == [(classify.task.train, 0), (classify.task.train, 1)]
    assert all(run["accuracy"] in (0, 0.25, 0.5, 0.75, 1) and run["examples_per_second"] > 0 for run in report["runs"])


def test_of_numbers_the_correlation_is_compared(
    classify: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train", "valid"):
        text = (tmp_path / f"{name}.csv").read_text().replace(",+", ",0.75").replace(",-", ",-1")
        (tmp_path / f"{name}.csv").write_text(text)
    typed = {key: value for key, value in flat(classify).items() if key in ("init_from", "task.train", "task.eval")}
    typed |= {"run_dir": tmp_path / "run", "data.max_length": 16, "train.batch_size": 4, "train.epochs": 2}
    score = load_config("score", [f"{key}={value}" for key, value in typed.items()])
    monkeypatch.setattr(finetune, "_run", lambda argv, _: main([*argv]))
    report = finetune.compare(score, 1, os.environ, lambda line: None, peers=False)
    (run,) = report["runs"]
    assert -1 <= run["Pearson"] <= 1 and f"| ours | {run['Pearson']:.2%} |" in finetune.render(report)


def test_other_kinds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks(["finetune-accuracy", "--config", "tag"]) == 2
    assert "task.kind=tag is not compared; give classify or score" in capsys.readouterr().err


def test_the_table_has_mean_and_deviation() -> None:
    runs = [{"contender": "ours", "seed": n, "accuracy": 0.8 + n / 100, "examples_per_second": 90.0} for n in (3, 4, 5)]
    report = {"runs": [*runs, {"contender": "peer", "seed": 3, "accuracy": 0.9, "examples_per_second": 1234.5}]}
    lines = finetune.render(report | {"examples": "folder/test.csv", "figure": "accuracy"}).splitlines()
    assert lines[2] == "| ours | 84.00% | 1.00 points | 83.00%, 84.00%, 85.00% | 90.0 |"
    assert lines[3] == "| peer | 90.00% | - | 90.00% | 1,234.5 |"
    assert "seeds 3 to 5 on test.csv" in lines[-1]


def test_a_run_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing = [sys.executable, "-S", "-c", "import sys; sys.exit('one line\\nbertjax: no such thing')"]
    monkeypatch.setattr(finetune, "module_command", lambda *_: failing)
    with pytest.raises(BertjaxError, match="^bertjax finetune failed: no such thing$"):
        finetune._run(["finetune"], os.environ)
    assert benchmarks(["finetune-accuracy", "--seeds", "0"]) == 2
    assert "--seeds 0 is impossible" in capsys.readouterr().err
