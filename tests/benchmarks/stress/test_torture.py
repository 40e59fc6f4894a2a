"""A run survives kills; and what looks for differences, and for where a kill hit, finds them."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stress import torture
from benchmarks.stress.comparison import differences, final_state
from benchmarks.stress.phases import Phase, Watch
from benchmarks.stress.process import Hit
from bertjax.config import Config
from bertjax.config.recipes import load_config
from bertjax.runs.folder import RunFolder
from bertjax.train.pretrain import pretrain


@pytest.fixture
def recipe(wikitext: Path, tmp_path: Path) -> Config:
    text = [f"data.path={wikitext}", f"data.cache={tmp_path / 'cache'}", "data.source=wikitext-2"]
    smaller = ["model.num_layers=1", "model.biases=false", "train.steps=20", "checkpoint.every=4"]
    smaller += ["train.batch_size=8", "eval.every=6"]
    return load_config("torture", [*text, "tokenizer.min_frequency=1", *smaller])


def test_a_kill_leaves_no_trace(recipe: Config, tmp_path: Path) -> None:
    """Of a packed run with dropout. `scripts/torture.py` makes it a hundred."""
    assert recipe.model.dropout > 0 and recipe.data.row_length > recipe.data.max_length
    environment = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    report = torture.torture(recipe, tmp_path, environment, print, kills=1, seed=149)  # early in a save
    assert report["differences"] == [] and report["signals"] == {"SIGKILL": 1}
    assert sum(report["hits"].values()) == 1
    assert "bit for bit" in torture.render(report)


# What must be found.


def test_differences_are_found(tiny: Config, tmp_path: Path) -> None:
    run = pretrain(tiny)
    other = shutil.copytree(run, tmp_path / "other")
    assert differences(run, other) == []

    folder = RunFolder(other)
    lines = folder.metrics.file.read_bytes().splitlines(keepends=True)
    folder.metrics.file.write_bytes(b"".join([*lines[:-1], lines[-2]]))
    assert differences(other, run) == [f"metrics.jsonl differs from line {len(lines)} on"]
    folder.metrics.file.write_bytes(b"".join([*lines, lines[-1]]))
    assert differences(other, run) == [f"metrics.jsonl has {len(lines) + 1} lines instead of {len(lines)}"]
    folder.metrics.file.write_bytes(b"".join(lines))

    state = final_state(run)
    assert any(name.startswith("params/") for name in state) and any(name.startswith("opt_state/") for name in state)
    assert int(np.frombuffer(state["step"][-8:], np.int64)[0]) == tiny.train.steps


def test_one_changed_bit_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"run": {"step": b"1", "params/a": b"\0\0"}, "other": {"step": b"1", "params/a": b"\0\1"}}
    for name in states:
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").touch()
    monkeypatch.setattr("benchmarks.stress.comparison.final_state", lambda run: states[run.name])
    assert differences(tmp_path / "run", tmp_path / "other") == ["params/a differs"]
    del states["other"]["params/a"]
    assert differences(tmp_path / "run", tmp_path / "other") == ["params/a differs"]


def hit(name: str, phase: Phase, exit_code: int, steps_lost: int = 0) -> Hit:
    return Hit(name, phase, 0.1, exit_code, steps_lost)


def test_what_a_stop_must_not_be() -> None:
    assert torture._fault(hit("SIGKILL", Phase.STEP, -9, steps_lost=7)) is None
    assert torture._fault(hit("SIGTERM", Phase.STEP, 75, steps_lost=1)) is None
    assert torture._fault(hit("SIGTERM", Phase.STARTING, -signal.SIGTERM)) is None
    assert torture._fault(hit("SIGTERM", Phase.ENDING, 0)) is None
    assert torture._fault(hit("SIGTERM", Phase.STEP, 0)) == "SIGTERM in a step ended with code 0"
    assert torture._fault(hit("SIGTERM", Phase.STARTING, 1)) == "SIGTERM starting ended with code 1"
    assert torture._fault(hit("SIGTERM", Phase.STEP, -15)) == "SIGTERM in a step ended with code -15"
    assert torture._fault(hit("SIGUSR1", Phase.SAVE, 75, steps_lost=2)) == "SIGUSR1 in a save lost 2 steps"


def test_a_difference_is_told() -> None:
    report = torture._report([hit("SIGTERM", Phase.SAVE, 75)], [[], ["params/a differs"]])
    assert report["differences"] == ["run 2: params/a differs"] and report["most_steps_lost"] == 0
    assert "DIFFERENT: run 2: params/a differs" in torture.render(report)


# Where a run is.

BEGUN = "train:    x\ndevices:  1 x cpu; folder: x\n"


@pytest.mark.parametrize(
    "said, files, phase",
    [
        ("", [], Phase.STARTING),
        ("", ["cache/corpora/.building-new"], Phase.CORPUS),
        ("", ["cache/corpora/x/.building-new"], Phase.CORPUS),
        ("", ["run/checkpoints/partial-4"], Phase.STARTING),
        (BEGUN, [], Phase.COMPILING),
        (BEGUN + "step 1/20  mlm\n", [], Phase.STEP),
        (BEGUN + "step 1/20  mlm\n", ["run/checkpoints/partial-1"], Phase.SAVE),
        (BEGUN + "step 5/20  mlm\n", [], Phase.EVALUATION),
        (BEGUN + "step 5/20  mlm\nheld out at step 5: MLM\n", [], Phase.STEP),
        (BEGUN + "step 20/20  mlm\n", [], Phase.EVALUATION),
        (BEGUN + "step 20/20  mlm\nheld out at step 20: MLM\n", [], Phase.SAVE),
        (BEGUN + "step 20/20  mlm\nheld out at step 20: MLM\n", ["run/checkpoints/20"], Phase.ENDING),
    ],
)
def test_where_a_run_is(tiny: Config, tmp_path: Path, said: str, files: list[str], phase: Phase) -> None:
    train, every = dataclasses.replace(tiny.train, steps=20), dataclasses.replace(tiny.eval, every=5)
    (tmp_path / "cache" / "corpora" / "x" / ".building-left-by-another").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "partial-3").mkdir(parents=True)
    watch = Watch(dataclasses.replace(tiny, train=train, eval=every), tmp_path / "output")
    assert watch.phase() == Phase.STARTING
    (tmp_path / "output").write_text(said)
    for name in files:
        (tmp_path / name).mkdir()
    assert watch.phase() == phase
