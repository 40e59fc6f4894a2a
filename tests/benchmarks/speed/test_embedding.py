"""Learning of embeddings is timed as a run does it, on pairs that are made where none are named."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.films import Films
from benchmarks.speed import embedding, ours, table
from bertjax.config import Config
from bertjax.config.recipes import load_config, save_config


@pytest.fixture
def pairs(tiny_model: Path, tmp_path: Path, one_device: None) -> Config:
    """Ten pairs, in batches of 4."""
    with open(tmp_path / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        rows = [(f"a film {'good ' * number}", f"the film {'bad ' * number}") for number in range(10)]
        csv.writer(file).writerows([("text", "pair"), *rows])
    typed = {"init_from": tiny_model, "task.train": tmp_path / "pairs.csv", "run_dir": tmp_path / "run"}
    typed |= {"data.max_length": 16, "train.batch_size": 4, "task.eval_share": 0.2}
    return load_config("embed", [f"{key}={value}" for key, value in typed.items()])


def test_ours_is_timed(pairs: Config, tmp_path: Path) -> None:
    save_config(pairs, tmp_path / "recipe.yaml")
    figures = ours.embed(config=str(tmp_path / "recipe.yaml"), overrides=[], warm=1, steps=2)
    assert figures["pairs_per_second"] > 0 and figures["useful_flops"] > 0 and 0.2 < figures["fill"] <= 1


def test_a_recipe_without_pairs_takes_sentences_about_films(
    pairs: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "train.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), ("a", "+"), ("b", "-"), ("a", "+"), ("c", "-"), ("d", "+")])
    monkeypatch.setattr("benchmarks.films.films", lambda: Films(*3 * [tmp_path / "train.csv"]))
    monkeypatch.setattr(embedding, "minilm", lambda: Path("minilm"))
    (tmp_path / "made").mkdir()
    config = embedding.with_pairs(load_config("embed"), tmp_path / "made")
    assert config.init_from == "minilm" and config.task.train == str(tmp_path / "made" / "pairs.csv")
    assert Path(config.task.train).read_text().split() == ["text,pair", "a,b", "c,d"]
    assert embedding.with_pairs(pairs, tmp_path) == pairs


def test_the_report_sets_ours_beside_the_peers(pairs: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def turns(contenders: dict[str, Any], rounds: int, say: Any) -> dict[str, list[dict[str, Any]]]:
        rates = {
            "float32_flops": 4e11,
            "bf16_flops": 8e11,
            "copy_bytes_per_second": 3e10,
            "device": "cpu",
            "devices": 1,
        }
        runs = {name: {"pairs_per_second": 10.0, "peak_memory_bytes": 2**31} for name in embedding.PEERS}
        runs |= {"ceiling": rates, "ours": {"pairs_per_second": 30.0, "useful_flops": 1e11, "peak_memory_bytes": 2**30}}
        runs |= {"ours_bf16": runs["ours"] | {"pairs_per_second": 50.0}}
        return {name: [dict(runs[name]) for _ in range(rounds)] for name in contenders}

    monkeypatch.setattr(embedding, "take_turns", turns)
    report = embedding.measure(pairs, tmp_path, os.environ, lambda line: None, rounds=2, peer_packages=("torch",))
    assert report["ratios"]["ours"]["trainer_float32"]["pairs_per_second"]["median"] == 3
    assert report["ratios"]["ours_bf16"]["trainer_bf16"]["pairs_per_second"]["median"] == 5
    assert report["embed"]["share_of_ceiling"] == 0.25
    assert "4 pairs a step" in table.render(report, embedding.COLUMNS)
