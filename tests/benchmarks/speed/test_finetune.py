"""Fine-tuning is timed as a run does it, and set beside the peers of the same round."""

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.films import Films
from benchmarks.speed import finetune, ours, table
from benchmarks.speed.contest import Contender
from bertjax.config import Config
from bertjax.config.recipes import load_config, save_config


def test_ours_learns_and_tells_labels(classify: Config, tmp_path: Path) -> None:
    save_config(classify, tmp_path / "recipe.yaml")
    figures = ours.finetune(
        config=str(tmp_path / "recipe.yaml"),
        overrides=["optim.layer_decay=0.9", "optim.freeze_layers=1"],  # what changes how a state begins
        texts=str(tmp_path / "valid.csv"),
        warm=1,
        steps=2,
    )
    assert figures["examples_per_second"] > 0 and figures["texts_per_second"] > 0 and figures["useful_flops"] > 0
    assert 0.2 < figures["fill"] <= 1 and figures["devices"] == 1


def test_a_recipe_without_examples_is_of_films(classify: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Films(*map(Path, ("train.csv", "valid.csv", "test.csv")))
    monkeypatch.setattr(finetune, "films", lambda: there)
    monkeypatch.setattr(finetune, "minilm", lambda: Path("minilm"))
    config, texts = finetune.with_films(load_config("classify"))
    assert (config.init_from, config.task.train, config.task.eval, texts) == (
        "minilm",
        "train.csv",
        "valid.csv",
        "test.csv",
    )
    assert finetune.with_films(classify) == (classify, classify.task.eval)
    monkeypatch.setattr(finetune, "ratings", lambda: Films(*map(Path, ("a.csv", "b.csv", "c.csv"))))
    config, texts = finetune.with_films(load_config("score"))
    assert (config.task.train, config.task.eval, texts) == ("a.csv", "b.csv", "c.csv")


def test_the_report_has_all_contenders_and_starts_are_ours(
    classify: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench").mkdir()
    asked: dict[str, Contender] = {}

    def turns(contenders: dict[str, Contender], rounds: int, say: Any) -> dict[str, list[dict[str, Any]]]:
        asked.update(contenders)
        rates = {
            "float32_flops": 4e11,
            "bf16_flops": 8e11,
            "copy_bytes_per_second": 3e10,
            "device": "cpu",
            "devices": 1,
        }
        runs = {"ceiling": rates, "start": {"first_step_seconds": 9.0, "peak_memory_bytes": 7}}
        ours = {"peak_memory_bytes": 2**30, "texts_per_second": 400.0, "useful_flops": 1e11}
        runs |= {"ours": {"examples_per_second": 120.0, **ours}, "ours_bf16": {"examples_per_second": 200.0, **ours}}
        peer = {"peak_memory_bytes": 2**31, "texts_per_second": 100.0}
        runs |= {name: {"examples_per_second": 40.0, **peer} for name in finetune.PEERS}
        return {name: [dict(runs[name]) for _ in range(rounds)] for name in contenders}

    monkeypatch.setattr(finetune, "take_turns", turns)
    report = finetune.measure(
        classify, tmp_path / "bench", os.environ, lambda line: None, rounds=2, peer_packages=("torch",)
    )
    assert list(asked) == ["ceiling", "start", "ours", "ours_bf16", *finetune.PEERS]
    assert load_config(asked["ours"].arguments["config"]) == classify
    assert report["finetune"]["first_step_seconds"] == 9 and report["finetune"]["peak_memory_bytes"] == 2**30
    assert report["finetune"]["share_of_ceiling"] == 0.25
    assert report["ratios"]["ours"]["trainer_float32"]["examples_per_second"]["median"] == 3
    assert report["ratios"]["ours_bf16"]["trainer_grouped_bf16"]["examples_per_second"]["median"] == 5
    shown = table.render(report, finetune.COLUMNS)
    assert "ours_bf16 / trainer_grouped_bf16" in shown and "4 examples a step, of 10" in shown
