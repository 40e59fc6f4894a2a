"""Whole runs: what they leave behind, how they stop, and that going on equals never having stopped."""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import bertjax
from bertjax.config import CheckpointConfig, Config, EvalConfig, OnFailure, TrainConfig
from bertjax.data import wikitext as wikitext_room
from bertjax.errors import BertjaxError
from bertjax.model import Bert
from bertjax.optim import make_optimizer
from bertjax.pretraining import pretrain
from bertjax.recipe import save_config
from bertjax.run import RunFolder
from bertjax.sharding import with_sharding
from bertjax.train import init_state


def saved_trees(folder: Path) -> list[np.ndarray]:
    """The leaves of the newest parameters and optimiser state."""
    run = RunFolder(folder)
    config = run.config()
    fresh = functools.partial(init_state, Bert(config.model), make_optimizer(config.optim, config.train.steps), 0)
    template = with_sharding(jax.eval_shape(fresh), jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with run.checkpoints() as checkpoints:
        templates = {"params": template.params, "opt_state": template.opt_state}
        return jax.tree.leaves(checkpoints.restore(run.latest_step(checkpoints), templates))


def newest_step(folder: Path) -> int | None:
    with RunFolder(folder).checkpoints() as checkpoints:
        return checkpoints.latest_step()


def without_rates(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl, less what depends on the clock."""
    return [{k: v for k, v in line.items() if k != "pairs_per_second"} for line in RunFolder(folder).metrics()]


def test_the_public_interface(tiny: Config, tmp_path: Path) -> None:
    save_config(tiny, tmp_path / "recipe.yaml")
    config = bertjax.load_config(tmp_path / "recipe.yaml", ["train.steps=3", "eval.every=2"])
    folder = bertjax.pretrain(config)
    assert bertjax.pretrain is pretrain  # the name still means the function after it was used
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "tokenizer.json", "metrics.jsonl", "loss.png", "checkpoints", "environment.json"
    }  # fmt: skip
    lines = RunFolder(folder).metrics()
    assert [line["step"] for line in lines if "mlm_loss" in line] == [1, 2, 3]
    assert [line["step"] for line in lines if "held_out_mlm_loss" in line] == [2, 3]
    encoder = bertjax.Encoder.load(folder)
    assert encoder.encode_tokens(["the", "noun1"]).shape == (1, 4, 16)


def test_a_small_language_is_learnt(tiny: Config) -> None:
    config = dataclasses.replace(
        tiny,
        train=TrainConfig(steps=120, batch_size=32, log_every=40),
        model=dataclasses.replace(tiny.model, dropout=0),
    )
    held_out = RunFolder(pretrain(config)).metrics()[-1]
    vocabulary = RunFolder(config.run_dir).tokenizer().vocab_size - 5
    assert held_out["held_out_mlm_loss"] < 0.5 * np.log(vocabulary)


@pytest.mark.parametrize("stop", [2, 3])
def test_going_on_equals_never_having_stopped(tiny: Config, tmp_path: Path, stop: int) -> None:
    config = dataclasses.replace(
        tiny,
        optim=dataclasses.replace(tiny.optim, schedule="cosine", warmup_steps=2, weight_decay=0.1, clip_norm=0.5),
        train=dataclasses.replace(tiny.train, steps=5),
        eval=EvalConfig(every=2),
        checkpoint=CheckpointConfig(every=1, keep=5),
    )
    whole = pretrain(config)
    killed = tmp_path / "killed"  # after its checkpoint of that step, in the middle of a line of metrics
    shutil.copytree(whole, killed)
    for step in range(stop + 1, 6):
        shutil.rmtree(killed / "checkpoints" / str(step))
    metrics = RunFolder(killed).metrics_file
    metrics.write_text(metrics.read_text()[:-20])
    pretrain(dataclasses.replace(config, run_dir=str(killed)), resume=True)
    for ours, theirs in zip(saved_trees(killed), saved_trees(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert without_rates(killed) == without_rates(whole)


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_run_goes_on_from_the_newest_sound_checkpoint(tiny: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny, checkpoint=CheckpointConfig(every=1, keep=4))
    whole = pretrain(config)
    hurt = tmp_path / "hurt"
    shutil.copytree(whole, hurt)
    shutil.rmtree(hurt / "checkpoints" / "4")
    largest = max((hurt / "checkpoints" / "3" / "params").rglob("d/*"), key=lambda file: file.stat().st_size)
    flip_a_byte(largest)
    with pytest.warns(UserWarning, match=r"3 is damaged \(params/.* holds other bytes than were written\); 2 is used"):
        bertjax.Encoder.load(hurt)
    assert (hurt / "checkpoints" / "3").is_dir()
    with pytest.warns(UserWarning, match="3 is damaged .* and set aside as damaged-3; 2 is used instead"):
        pretrain(dataclasses.replace(config, run_dir=str(hurt)), resume=True)
    assert sorted(path.name for path in (hurt / "checkpoints").iterdir()) == ["1", "2", "3", "4", "damaged-3"]
    for ours, theirs in zip(saved_trees(hurt), saved_trees(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert without_rates(hurt) == without_rates(whole)
    for step in (1, 2, 3, 4):
        flip_a_byte(hurt / "checkpoints" / str(step) / "manifest.json")
    with pytest.raises(BertjaxError, match="4 is damaged .* all 4 of them are; train anew"):
        bertjax.Encoder.load(hurt)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk; no_room in test_checkpoint.py stands for it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_a_full_disk(tiny: Config, small_disk: Path, monkeypatch: pytest.MonkeyPatch, on_failure: OnFailure) -> None:
    def evaluate_as_the_disk_fills(*_: object) -> dict[str, float]:  # before the checkpoint of the same step
        step = next(steps)
        if step == 2:
            while not (small_disk / "run" / "checkpoints" / "1").exists():  # it is written in the background
                time.sleep(0.01)
            fill(small_disk)
        if step == 4:
            (small_disk / "ballast").unlink()
        return dict.fromkeys(["mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"], 0.5)

    steps = itertools.count(1)
    monkeypatch.setattr("bertjax.pretraining.evaluate", evaluate_as_the_disk_fills)
    saves = CheckpointConfig(every=1, keep=1, on_failure=on_failure)
    config = dataclasses.replace(tiny, run_dir=str(small_disk / "run"), eval=EvalConfig(every=1), checkpoint=saves)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if on_failure == "continue":
            pretrain(config)
            said = "\n".join(str(warning.message) for warning in warned)
            assert re.search(r"/2 \(.*No space left on device\) and checkpoint 1 stays the newest", said)
        else:
            with pytest.raises(BertjaxError, match="cannot .*No space left on device") as error:
                pretrain(config)
            assert "\n" not in str(error.value) and newest_step(Path(config.run_dir)) == 1
            (small_disk / "ballast").unlink()
            steps = itertools.count(5)
            pretrain(config, resume=True)
    lines = RunFolder(config.run_dir).metrics()
    assert [line["step"] for line in lines] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [path.name for path in (small_disk / "run" / "checkpoints").iterdir()] == ["4"]


def test_a_folder_that_is_removed_stops_the_run(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate_as_the_folder_goes(*_: object) -> dict[str, float]:
        shutil.rmtree(tiny.run_dir)
        return dict.fromkeys(["mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"], 0.5)

    monkeypatch.setattr("bertjax.pretraining.evaluate", evaluate_as_the_folder_goes)
    with pytest.raises(BertjaxError, match="cannot write to .*metrics.jsonl: No such file or directory"):
        pretrain(tiny)
    going_on = dataclasses.replace(tiny, checkpoint=CheckpointConfig(on_failure="continue"))
    with (
        pytest.warns(UserWarning, match="metrics.jsonl: No such file or directory; its lines are kept"),
        pytest.warns(UserWarning, match="cannot save checkpoint"),
        pytest.raises(BertjaxError, match="cannot save checkpoint .*/4 .*No such file or directory.* none yet"),
    ):
        pretrain(going_on)
    assert not Path(tiny.run_dir).exists()


def test_a_run_goes_on_only_as_the_same_run(tiny: Config, wikitext: Path, tmp_path: Path) -> None:
    folder = pretrain(tiny)
    with pytest.raises(BertjaxError, match="has made its 4 steps; give a greater --train.steps"):
        pretrain(tiny, resume=True)
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": TrainConfig(batch_size=4096)}, "180 pairs .* fewer than train.batch_size=4096"),
        ({"run_dir": "/proc/nowhere/run"}, "cannot write to /proc/nowhere.*--run_dir"),
    ],
)
def test_what_is_refused_leaves_no_folder(tiny: Config, change: dict, message: str) -> None:
    config = dataclasses.replace(tiny, **change)
    with pytest.raises(BertjaxError, match=message) as error:
        pretrain(config)
    assert "\n" not in str(error.value)
    assert not Path(config.run_dir).exists()


def test_there_is_nothing_to_resume(tiny: Config) -> None:
    with pytest.raises(BertjaxError, match="not a run's folder"):
        pretrain(tiny, resume=True)
    folder = pretrain(tiny)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(BertjaxError, match="has no checkpoint"):
        pretrain(dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, steps=5)), resume=True)
    assert not (folder / "checkpoints").exists()


def test_the_fallback_is_said_and_recorded(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(wikitext_room, "download", functools.partial(wikitext_room.download, mirrors=()))
    monkeypatch.delenv("BERTJAX_DATA", raising=False)
    data = dataclasses.replace(tiny.data, path=None)
    with pytest.raises(BertjaxError, match="set data.fallback: python-docs"):
        pretrain(dataclasses.replace(tiny, data=data))
    config = dataclasses.replace(
        tiny, data=dataclasses.replace(data, fallback="python-docs"), checkpoint=CheckpointConfig(every=2)
    )
    folder = pretrain(config)
    out = capsys.readouterr().out
    assert "NOTICE:   python-docs is read instead of what was asked for, because\n          WikiText-2" in out
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["corpus"]["source"] == "python-docs" and environment["corpus"]["fallback_because"]
    assert RunFolder(folder).config().data.source == "python-docs"
    pretrain(dataclasses.replace(config, train=dataclasses.replace(config.train, steps=5)), resume=True)


def test_ctrl_c_saves_and_says_how_to_go_on(tiny: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny, train=TrainConfig(steps=100_000, batch_size=8, log_every=1))
    save_config(config, tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "bertjax", "pretrain", "--config", str(tmp_path / "recipe.yaml")]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    run, deadline = RunFolder(config.run_dir), time.monotonic() + 120
    while len(run.metrics()) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "stopping after this step" in err
    with run.checkpoints() as checkpoints:
        step = run.latest_step(checkpoints)
    assert f"stopped after step {step}, saved; go on with" in out
    assert step == run.metrics()[-1]["step"]
    (resume,) = [line.split() for line in out.splitlines() if line.startswith("  bertjax pretrain")]
    # The command as it was printed, once the run has an end that a test can wait for.
    near = dataclasses.replace(run.config(), train=dataclasses.replace(config.train, steps=step + 2))
    save_config(near, run.path / "config.yaml")
    done = subprocess.run([sys.executable, "-m", *resume], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in run.metrics() if "mlm_loss" in line] == list(range(1, step + 3))
