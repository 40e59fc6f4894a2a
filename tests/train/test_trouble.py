"""Runs that meet trouble: a full disk, damaged checkpoints, losses that leap or are no numbers."""

import contextlib
import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ended_runs import Killed, assert_same_end, die, newest_step
from refusals import refusal

import bertjax
from bertjax.config import CheckpointConfig, Config, EvalConfig, OnFailure
from bertjax.data.batching.batch import Batch
from bertjax.data.batching.batches import Batches
from bertjax.errors import BertjaxError, DivergedError, ExitCode
from bertjax.runs.checkpoint_writer import CheckpointWriter
from bertjax.runs.folder import RunFolder
from bertjax.storage.lease import LEASE, FolderPlace
from bertjax.train.divergence import Skip
from bertjax.train.pretrain import pretrain


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


@pytest.mark.usefixtures("no_locks")
def test_where_there_are_no_locks_a_run_whose_folder_was_taken_over_ends(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = dataclasses.replace(tiny, run_dir=str(tmp_path / "taken"), checkpoint=CheckpointConfig(every=2))
    whole = dataclasses.replace(taken, run_dir=str(tmp_path / "whole"))
    save = CheckpointWriter.save

    def save_and_lose(writer: CheckpointWriter, *trees: Any, **how: Any) -> None:
        save(writer, *trees, **how)
        lease = {"holder": "process 2 on another", "token": "", "number": 1}  # as it is after a pause of a minute
        FolderPlace(tmp_path / "taken").write(json.dumps(lease).encode(), LEASE)

    with pytest.warns(UserWarning, match="cannot be locked .Operation not supported."):
        pretrain(whole)
        with monkeypatch.context() as patched:
            patched.setattr(CheckpointWriter, "save", save_and_lose)
            patched.setattr("bertjax.storage.lease.BEAT", 60.0)  # seconds, in which it is silent
            assert f"{tmp_path / 'taken'} was taken over by process 2 on another" in refusal(pretrain, taken)
        assert newest_step(tmp_path / "taken") == 2
        pretrain(taken, resume=True)  # process 2 is silent
    assert_same_end(tmp_path / "taken", tmp_path / "whole")
    assert not list(tmp_path.glob("*/*lease*"))


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
    monkeypatch.setattr("bertjax.train.loop.evaluate", evaluate_as_the_disk_fills)
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
            assert error.value.exit_code == ExitCode.DISK_FULL
            assert "\n" not in str(error.value) and newest_step(Path(config.run_dir)) == 1
            (small_disk / "ballast").unlink()
            steps = itertools.count(5)
            pretrain(config, resume=True)
    lines = RunFolder(config.run_dir).metrics.read()
    assert [line["step"] for line in lines] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [path.name for path in (small_disk / "run" / "checkpoints").iterdir()] == ["4"]


def test_a_folder_that_is_removed_stops_the_run(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate_as_the_folder_goes(*_: object) -> dict[str, float]:
        shutil.rmtree(tiny.run_dir)
        return dict.fromkeys(["mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"], 0.5)

    monkeypatch.setattr("bertjax.train.loop.evaluate", evaluate_as_the_folder_goes)
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


def test_bad_steps_end_the_run_and_a_resume_counts_on(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(
        tiny,
        train=dataclasses.replace(tiny.train, steps=20, max_bad_steps=3),
        checkpoint=CheckpointConfig(every=2),
    )
    batch_at = Batches.batch_at

    def going_bad(self: Batches, number: int, rows: range | None = None) -> Batch:
        batch = batch_at(self, number, rows)
        weight = np.float32(np.nan if number in (1, 3, 4, 5) else 1)
        return batch._replace(mlm_weights_bp=batch.mlm_weights_bp * weight)

    monkeypatch.setattr(Batches, "batch_at", going_bad)
    lines = []
    for resume in (False, True):
        with pytest.raises(DivergedError, match="step 6 is number 3 in a row .* the largest parameters are "):
            pretrain(config, resume=resume)
        folder = RunFolder(config.run_dir)
        with folder.checkpoints() as checkpoints:
            assert checkpoints.latest_step() == 4
        lines.append(folder.metrics.file.read_text())
    assert lines[0] == lines[1]
    assert [line["mlm_loss"] is None for line in folder.metrics.read()] == [False, True, False, True, True, True]
    assert [line["skipped_steps"] for line in folder.metrics.read()] == [0, 1, 1, 2, 3, 4]
    encoder = bertjax.Encoder.load(folder.path)
    assert np.isfinite(encoder.encode_tokens(["the", "noun1"])).all()


def spiking(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> list[int]:
    """Makes batches of these numbers spike; the list grows by the batches that are learnt from."""
    batch_at, taken = Batches.batch_at, []

    def learnt(self: Batches, number: int, rows: range | None = None) -> Batch:
        taken.append(number)
        batch = batch_at(self, number, rows)
        return batch._replace(mlm_labels_bp=0 * batch.mlm_labels_bp) if number in numbers else batch

    monkeypatch.setattr(Batches, "batch_at", learnt)
    return taken


@pytest.fixture
def careful(tiny: Config) -> Config:
    """8 steps, a checkpoint after every third, and a loss 5% above the recent is a spike."""
    return dataclasses.replace(
        tiny,
        train=dataclasses.replace(tiny.train, steps=8, spike_factor=1.05),
        checkpoint=CheckpointConfig(every=3),
        eval=EvalConfig(every=2),
    )


def test_a_spike_goes_back_and_leaves_its_batches_out(
    careful: Config, tmp_path: Path, on_call: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = spiking(monkeypatch, 4)
    whole = RunFolder(pretrain(dataclasses.replace(careful, run_dir=str(tmp_path / "whole"))))
    # Batch 5 was under way when the loss of batch 4 was read, and batch 6 was made.
    assert taken == [*range(7), *range(5, 10)]
    assert whole.decisions.skips() == [Skip(3, 2)]
    assert [line["step"] for line in whole.metrics.read() if "mlm_loss" in line] == list(range(1, 9))
    for window in (
        ("bertjax.runs.decisions.Decisions.add_skip",),  # the spike is seen and no more
        ("os.replace", 1, "skipped.json"),
        ("bertjax.train.loop._go_on", 2),  # the skip is noted, the metrics are not cut back yet
        ("bertjax.train.loop.place_rows", 4),  # on the new way
    ):
        with on_call(die, *window), pytest.raises(Killed):
            pretrain(careful, resume=True)
    pretrain(careful, resume=True)
    assert_same_end(Path(careful.run_dir), whole.path)
    assert RunFolder(careful.run_dir).decisions.skips() == whole.decisions.skips()


def test_a_run_that_only_spikes_ends(careful: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    spiking(monkeypatch, *range(3, 100))
    with pytest.raises(DivergedError, match="has gone back to step 3 3 times and left batches out"):
        pretrain(careful)
    with pytest.raises(DivergedError, match="has gone back to step 3 3 times and left batches out"):
        pretrain(careful, resume=True)
    assert len(RunFolder(careful.run_dir).decisions.skips()) == 3


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
    assert_same_end(hurt, whole)
    for step in (1, 2, 3, 4):
        flip_a_byte(hurt / "checkpoints" / str(step) / "manifest.json")
    with pytest.raises(BertjaxError, match="4 is damaged .* all 4 of them are; train anew"):
        bertjax.Encoder.load(hurt)
