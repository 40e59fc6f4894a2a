"""Runs that are stopped, killed or moved: going on equals never having stopped."""

import dataclasses
import functools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ended_runs import Killed, assert_same_end, die, saved_trees

from bertjax.config import CheckpointConfig, Config, EvalConfig, MeshConfig, OptimConfig, TrainConfig
from bertjax.config.recipes import save_config
from bertjax.errors import BertjaxError, ExitCode
from bertjax.runs.folder import RunFolder
from bertjax.train.pretrain import pretrain


def test_going_on_equals_never_having_stopped(tiny: Config, tmp_path: Path) -> None:
    optim = OptimConfig("muon", schedule="cosine", warmup_steps=2, weight_decay=0.1, clip_norm=0.5, ema_decay=0.9)
    config = dataclasses.replace(
        tiny,
        optim=optim,
        model=dataclasses.replace(tiny.model, frequency_bias=True, cooccurrence_embedding=True),
        train=dataclasses.replace(tiny.train, steps=5, batch_warmup_steps=4),
        eval=EvalConfig(every=2),
        checkpoint=CheckpointConfig(every=1, keep=5),
    )
    whole = pretrain(config)
    for stop in (2, 3):
        killed = tmp_path / f"killed-{stop}"  # after its checkpoint of that step, in the middle of a line of metrics
        shutil.copytree(whole, killed)
        for step in range(stop + 1, 6):
            shutil.rmtree(killed / "checkpoints" / str(step))
        metrics = RunFolder(killed).metrics.file
        metrics.write_text(metrics.read_text()[:-20])
        pretrain(dataclasses.replace(config, run_dir=str(killed)), resume=True)
        assert_same_end(killed, whole)


@pytest.fixture
def eventful(tiny: Config) -> Config:
    """Dropout and packing on; 6 steps, an evaluation and a checkpoint after every second."""
    return dataclasses.replace(
        tiny,
        data=dataclasses.replace(tiny.data, row_length=48),
        train=dataclasses.replace(tiny.train, steps=6),
        eval=EvalConfig(every=2),
        checkpoint=CheckpointConfig(every=2),
    )


def test_killed_in_every_window_it_ends_as_if_it_had_not_been(
    eventful: Config, tmp_path: Path, on_call: Callable
) -> None:
    whole = pretrain(dataclasses.replace(eventful, run_dir=str(tmp_path / "whole")))
    shutil.rmtree(tmp_path / "cache")
    folder = RunFolder(eventful.run_dir)
    save, plot = "bertjax.runs.checkpoint_writer.CheckpointWriter.save", "bertjax.train.run.plot_losses"
    for window in (
        ("bertjax.data.tokenizer.tokenizer.Tokenizer.train",),  # there is no folder yet
        ("os.replace", 1, "config.yaml"),  # the folder is half made
        ("bertjax.train.loop.place_rows",),  # no step is made
        (save,),  # the evaluation's line is written, its checkpoint is not
        ("bertjax.train.loop.place_rows", 3),  # step 3, with its checkpoint written in the background
        ("os.replace", 1, "config.yaml"),  # written anew, as on each resume
        ("os.replace", 1, "metrics.jsonl"),  # cut back
        ("bertjax.train.loop.evaluate",),  # after step 4
        (save,),
        ("bertjax.train.progress.Progress.step_done", 4),  # step 6
        (plot,),
    ):
        with on_call(die, *window), pytest.raises(Killed):
            pretrain(eventful, resume=True)
    assert not folder.loss_plot.exists()
    pretrain(eventful, resume=True)
    assert folder.loss_plot.exists()
    assert_same_end(folder.path, whole)


def test_signals_stop_it_and_it_ends_as_if_they_had_not(
    eventful: Config, tmp_path: Path, on_call: Callable, capfd: pytest.CaptureFixture
) -> None:
    whole = pretrain(dataclasses.replace(eventful, run_dir=str(tmp_path / "whole")))
    shutil.rmtree(tmp_path / "cache")
    folder = RunFolder(eventful.run_dir)

    def stops(number: int, *target: object, after: int | None) -> None:
        capfd.readouterr()
        with on_call(functools.partial(os.kill, os.getpid(), number), *target), pytest.raises(SystemExit) as left:
            pretrain(eventful, resume=True)
        assert left.value.code == ExitCode.STOPPED
        out = capfd.readouterr().out
        if after is None:
            assert "stopped after" not in out
        else:
            assert f"stopped after step {after}, saved; go on with\n  bertjax pretrain --config {folder.path}" in out
            with folder.checkpoints() as checkpoints:
                assert checkpoints.latest_step() == after == folder.metrics.read()[-1]["step"]

    stops(signal.SIGTERM, "bertjax.data.corpus.corpus.join", after=None)
    stops(signal.SIGUSR1, "bertjax.train.loop.place_rows", after=1)
    stops(signal.SIGTERM, "bertjax.train.loop.evaluate", after=2)
    assert not folder.metrics.has_evaluation(2)
    stops(signal.SIGUSR1, "bertjax.train.loop.evaluate", after=2)  # made up for, and stopped again
    stops(signal.SIGTERM, "bertjax.runs.checkpoint_writer.CheckpointWriter.save", after=5)  # of step 4
    stops(signal.SIGTERM, "bertjax.train.loop.evaluate", after=6)  # all steps are made, and yet something is missing
    pretrain(eventful, resume=True)
    assert_same_end(folder.path, whole)


def test_two_runs_on_one_folder(tiny: Config, on_call: Callable) -> None:
    def another() -> None:
        for resume in (False, True):
            message = f"in use by process {os.getpid()} on " if resume else "exists and is left as it is; go on"
            with pytest.raises(BertjaxError, match=message):
                pretrain(tiny, resume=resume)

    with on_call(another, "bertjax.train.loop.place_rows"):
        folder = pretrain(tiny)
    assert len(RunFolder(folder).metrics.read()) == 5


def test_a_run_goes_on_only_as_the_same_run(tiny: Config, wikitext: Path, tmp_path: Path) -> None:
    folder = pretrain(tiny)
    shorter = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, steps=3))
    with pytest.raises(BertjaxError, match="has made 4 steps, more than train.steps=3; give as many or more"):
        pretrain(shorter, resume=True)
    longer = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, steps=6))
    falling = dataclasses.replace(longer, optim=dataclasses.replace(tiny.optim, schedule="linear"))
    with pytest.raises(BertjaxError, match=r"optim.schedule=linear .*, train.steps=6 \(the run has 4\)"):
        pretrain(falling, resume=True)
    with pytest.raises(BertjaxError, match=r"another configuration: seed=1 \(the run has 0\)"):
        pretrain(dataclasses.replace(longer, seed=1), resume=True)
    (tmp_path / "wiki.train.tokens").write_text("a b . c d . e f . \n" * 20)
    (tmp_path / "wiki.valid.tokens").write_text((wikitext / "wiki.valid.tokens").read_text())
    elsewhere = dataclasses.replace(longer, data=dataclasses.replace(tiny.data, path=str(tmp_path)))
    with pytest.raises(BertjaxError, match="made with another text"):
        pretrain(elsewhere, resume=True)
    assert pretrain(longer, resume=True) == folder
    assert RunFolder(folder).config().train.steps == 6


def test_only_a_run_or_nothing_is_resumed(tiny: Config) -> None:
    folder = Path(tiny.run_dir)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BertjaxError, match="exists and is left as it is; without a config.yaml it is no run"):
        pretrain(tiny, resume=True)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("mesh", [(1, 4, 2), (2, 1, 1)], ids=["sharded", "rows"])
def test_a_run_goes_on_upon_another_mesh(
    tiny: Config, tmp_path: Path, devices: Callable[[int], None], mesh: tuple[int, int, int]
) -> None:
    config = dataclasses.replace(
        tiny,
        data=dataclasses.replace(tiny.data, row_length=32),
        checkpoint=CheckpointConfig(every=2),
        eval=EvalConfig(every=2),
    )
    whole, moved = pretrain(config), tmp_path / "moved"
    shutil.copytree(whole, moved)
    shutil.rmtree(moved / "checkpoints" / "4")
    devices(math.prod(mesh))
    pretrain(dataclasses.replace(config, run_dir=str(moved), mesh=MeshConfig(*mesh)), resume=True)
    for ours, theirs in zip(RunFolder(moved).metrics.read(), RunFolder(whole).metrics.read(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert RunFolder(moved).config().mesh == MeshConfig(*mesh)
    for ours, theirs in zip(saved_trees(moved), saved_trees(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_ctrl_c_saves_and_says_how_to_go_on(tiny: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny, train=TrainConfig(steps=100_000, batch_size=8, log_every=1))
    save_config(config, tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "bertjax", "pretrain", "--config", str(tmp_path / "recipe.yaml")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    run, deadline = RunFolder(config.run_dir), time.monotonic() + 120
    while len(run.metrics.read()) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "stopping after this step" in err
    with run.checkpoints() as checkpoints:
        step = checkpoints.newest_step()
    assert f"stopped after step {step}, saved; go on with" in out
    assert step == run.metrics.read()[-1]["step"]
    (resume,) = [line.split() for line in out.splitlines() if line.startswith("  bertjax pretrain")]
    # The command as it was printed, once the run has an end that a test can wait for.
    near = dataclasses.replace(run.config(), train=dataclasses.replace(config.train, steps=step + 2))
    save_config(near, run.path / "config.yaml")
    done = subprocess.run([sys.executable, "-m", *resume], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in run.metrics.read() if "mlm_loss" in line] == list(range(1, step + 3))
