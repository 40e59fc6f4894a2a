"""Reports of runs that nobody made, in plain data."""

import json
from pathlib import Path

import numpy as np

from bertjax.config.recipes import load_config, save_config
from bertjax.runs.folder import RunFolder
from bertjax.runs.report import (
    Attention,
    ClassFigures,
    Command,
    Learned,
    Near,
    RunReport,
    Sentence,
    WordUses,
)

NASTY = ["<script>alert(1)</script>", "\"quoted\" & 'so'", "שלום", "{{ 7 * 7 }}"]


def made(path: Path, **changes: object) -> RunFolder:
    """A run's folder with nothing but what a report reads."""
    path.mkdir()
    folder = RunFolder(path)
    save_config(load_config("textbook", [f"{key}={value}" for key, value in changes.items()]), path / "config.yaml")
    corpus = {"train": {"name": NASTY[0], "digest": "ab", "tokens": 1234}, "held_out": {"name": "x", "digest": "cd"}}
    told = {"python": "3.11", "packages": {"jax": "0"}, "devices": ["cpu:0 cpu"], "corpus": corpus}
    folder.environment_file.write_text(json.dumps(told))
    for step in (10, 20, 50):
        folder.metrics.append({"step": step, "mlm_loss": 60 / step, "nsp_loss": 0.5, "learning_rate": 0.01})
    folder.metrics.append({"step": 50, "held_out_mlm_loss": 4.5, "held_out_mlm_accuracy": 0.25})
    folder.metrics.append_timings({"step": 20, "seconds": 60.0, "host_bytes": 5})
    folder.metrics.append_timings({"step": 50, "pairs_per_second": 1600.04, "tokens_per_second": 99_000.5})
    folder.metrics.append_timings({"step": 50, "seconds": 9.0, "host_bytes": 1_230_000_000})
    rates = {"operations_per_second": 2.5e11, "peak_operations_per_second": 5e11}
    folder.metrics.append_timings({"step": 50, **rates})
    return folder


def learned(words: list[str]) -> Learned:
    near = Near(words, 0, 0.987)
    weights_lhts = np.full((2, 2, len(words), len(words)), 1 / len(words))
    weights_lhts[1, 0, 2, 3] = 0.9
    return Learned(
        verdict=[f"It has learned {words[0]}."],
        frequency_loss=5.62,
        classes=[ClassFigures("all", 1000, 4.5, 0.25, 5.6, 0.12), ClassFigures(words[0], 5, 4.5, 0.25, 5.6, 0.12)],
        sentences=[Sentence(words, 1, [(words[1], 0.5), (words[0], 0.25)]), Sentence(words, 2, [(words[0], 0.5)])],
        words=[WordUses(words[0], words, 0, [near], near, 7)],
        attention=Attention(words, weights_lhts),
    )


def reported(folder: RunFolder, shown: Learned | None = None, why_not: str = "", **heads: str) -> RunReport:
    heads = heads or {"mlm": "MLM", "nsp": "NSP"}
    return RunReport(
        folder, folder.config(), heads, "pairs", 5_600_000, shown, why_not, [Command(NASTY[0], f"cat {NASTY[1]}")]
    )
