"""The best step is kept, whatever comes after it, and is what a run gives; without a better one the run ends."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from labelled_texts import but

from bertjax import finetune
from bertjax.config import Config, EvalConfig
from bertjax.errors import BertjaxError
from bertjax.inference.pretrained import load
from bertjax.runs.checkpoint_writer import CheckpointWriter
from bertjax.runs.folder import RunFolder
from bertjax.train.best import Best

LOSSES = (5.0, 3.0, 4.0, 3.5, 1.0)  # after each epoch, of two steps


def test_a_run_is_over_after_so_many_evaluations_without_a_better_one() -> None:
    choose = random.Random(0)
    for patience, figure in itertools.product((1, 2, 3), ("loss", "accuracy")):
        best, values = Best(EvalConfig(best=figure, patience=patience), {}), []
        for step in range(1, 20):
            value = choose.choice([None, float("nan"), 0.0, 1.0, 2.0, 3.0])
            best.add(step, value)
            values.append(-np.inf if value is None or np.isnan(value) else value if figure == "accuracy" else -value)
            found = max(values)
            first = values.index(found) + 1 if found > -np.inf else 0
            assert best.steps[:1] == [first][: bool(first)]
            assert best.over == (step - first >= patience)
            assert best.needs(step) == (best.over or first == step)
    best = Best(EvalConfig(), {})
    assert not best.steps and not best.over and not best.needs(3)


@pytest.fixture
def stopping(small: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A run of ten steps at most, whose losses are told."""

    def evaluate(*_: Any) -> dict[str, float]:
        return {"label_loss": LOSSES[len(told[-1].metrics.values("loss"))], "label_accuracy": 0.5}

    told: list[RunFolder] = []
    monkeypatch.setattr("bertjax.train.loop.evaluate", evaluate)
    monkeypatch.setattr(
        "bertjax.train.run.RunFolder", lambda *args, **how: told.append(RunFolder(*args, **how)) or told[-1]
    )
    return but(small, train__epochs=5.0, eval__patience=2, checkpoint__every=3, checkpoint__keep=1)


def checkpoints(run: Path) -> list[int]:
    with RunFolder(run).checkpoints() as found:
        return found.steps()


def test_killed_and_resumed_it_ends_with_the_same_best_step(
    stopping: Config,
    tmp_path: Path,
    kill: Callable,
    states: list[Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = finetune(stopping)
    said = capsys.readouterr().out
    assert "step 8: no better loss than that of step 4 so far; the run ends" in said
    assert "best:     step 4 of 8, held-out loss 3.0000; it is what the run gives" in said
    folder = RunFolder(run)
    assert folder.config().eval == EvalConfig(every=2, best="loss", patience=2)
    assert folder.metrics.values("loss") == dict(zip((2, 4, 6, 8), LOSSES, strict=False))
    assert checkpoints(run) == [4, 8]
    four_steps = finetune(
        but(stopping, run_dir=str(tmp_path / "four"), train__epochs=2.0, eval__patience=None, eval__best=None)
    )
    assert states[0].step == states[1].step == 4
    jax.tree.map(np.testing.assert_array_equal, states[0], states[1])
    jax.tree.map(np.testing.assert_array_equal, load(run).params, load(four_steps).params)

    killed = but(stopping, run_dir=str(tmp_path / "killed"))
    kill(killed, 3)
    save = CheckpointWriter.save

    def save_until_8(self: CheckpointWriter, step: int, trees: dict[str, Any], **how: Any) -> None:
        if step == 8:  # the run has told that it ends
            raise EOFError
        save(self, step, trees, **how)

    with monkeypatch.context() as patched, pytest.raises(EOFError):
        patched.setattr(CheckpointWriter, "save", save_until_8)
        finetune(killed, resume=True)
    for _ in range(2):  # the second time there is nothing left to do
        finetune(killed, resume=True)
        assert checkpoints(Path(killed.run_dir)) == [4, 8]
        assert RunFolder(killed.run_dir).metrics.read() == folder.metrics.read()
        jax.tree.map(np.testing.assert_array_equal, states[-1], states[0])
    assert "killed has made its 8 steps" in capsys.readouterr().out

    # A best step that is damaged gives way to the next best.
    file = max((run / "checkpoints" / "4" / "params").rglob("*"), key=lambda file: file.stat().st_size * file.is_file())
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="checkpoints/4 is damaged .*; 8 is used instead"):
        load(run)

    # More patience goes on from where it ended, and finds a better one.
    finetune(but(killed, eval__patience=3), resume=True)
    assert checkpoints(Path(killed.run_dir)) == [10] and states[-1].step == 10


def test_a_figure_that_is_not_there_is_said_before_a_step(small: Config, states: list[Any]) -> None:
    """With one that is, the run goes on."""
    with pytest.raises(
        BertjaxError, match="no held-out figure eval.best=acc; give one of .*accuracy, .*label_loss, .*macro F1"
    ):
        finetune(but(small, eval__best="acc"))
    assert not RunFolder(small.run_dir).metrics.read()
    run = RunFolder(finetune(but(small, eval__best="label_accuracy"), resume=True))
    values = run.metrics.values("label_accuracy")
    assert list(values) == [2, 4, 6] and values[int(states[0].step)] == max(values.values())
