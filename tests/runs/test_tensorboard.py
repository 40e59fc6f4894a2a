"""TensorBoard's events hold what metrics.jsonl holds, after a resume too."""

import contextlib
import dataclasses
import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from bertjax.config import Config, EvalConfig, LoggingConfig
from bertjax.errors import BertjaxError
from bertjax.runs.folder import RunFolder
from bertjax.runs.tensorboard import Events
from bertjax.train.pretrain import pretrain

Curves = dict[str, dict[int, float]]


def events(folder: Path) -> Iterator[Event]:
    """All of them, in TensorBoard's order: file after file by name."""
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def curves(folder: Path) -> Curves:
    """What TensorBoard shows: a start makes it forget the steps from there on."""
    seen: Curves = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            seen = {tag: {n: x for n, x in points.items() if n < event.step} for tag, points in seen.items()}
        for value in event.summary.value:
            assert event.step not in seen.get(value.tag, {}), "a point comes twice"
            seen.setdefault(value.tag, {})[event.step] = value.simple_value
    return {tag: points for tag, points in seen.items() if points}


def metrics(folder: RunFolder) -> Curves:
    seen: Curves = {}
    for line in folder.metrics.read():
        for name, value in line.items():
            if name != "step":
                tag = name.replace("held_out_", "held_out/") if "held_out" in name else f"train/{name}"
                seen.setdefault(tag, {})[line["step"]] = value
    return seen


def test_a_resumed_run_shows_each_step_once(tiny: Config) -> None:
    config = dataclasses.replace(
        tiny,
        logging=LoggingConfig(tensorboard=True),
        eval=EvalConfig(every=2),
        train=dataclasses.replace(tiny.train, steps=3),
    )
    folder = RunFolder(pretrain(config))
    with contextlib.closing(Events(folder.path / "tensorboard")) as ahead:  # until it was killed
        ahead.append({"step": 4, "mlm_loss": 9.0, "nsp_loss": None})
        ahead.append({"step": 5, "mlm_loss": 9.0})
    pretrain(dataclasses.replace(config, train=dataclasses.replace(config.train, steps=6)), resume=True)
    shown, expected = curves(folder.path / "tensorboard"), metrics(folder)
    assert sorted(shown.pop("train/pairs_per_second")) == [1, 2, 3, 4, 5, 6]
    assert shown.keys() == expected.keys() and {"train/learning_rate", "held_out/mlm_loss"} < shown.keys()
    for tag, points in expected.items():
        assert shown[tag] == pytest.approx(points, rel=1e-6)


def test_it_may_begin_when_a_run_is_resumed(tiny: Config) -> None:
    config = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, steps=2))
    folder = RunFolder(pretrain(config))
    assert not (folder.path / "tensorboard").exists()
    config = dataclasses.replace(tiny, logging=LoggingConfig(tensorboard=True))
    pretrain(config, resume=True)
    assert sorted(curves(folder.path / "tensorboard")["train/mlm_loss"]) == [3, 4]


def test_without_the_library_nothing_is_begun(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboardX" else found(name))
    config = dataclasses.replace(tiny, logging=LoggingConfig(tensorboard=True))
    with pytest.raises(BertjaxError, match=r"needs tensorboardX: pip install 'bertjax\[tensorboard\]'"):
        pretrain(config)
    assert not Path(config.run_dir).exists()


def test_processes_do_not_share_a_file(tmp_path: Path) -> None:
    for step in range(3):
        with contextlib.closing(Events(tmp_path / "events")) as mine:
            mine.append({"step": step, "mlm_loss": 1.5, "held_out_nsp_loss": float("nan")})
    assert curves(tmp_path / "events")["train/mlm_loss"] == {0: 1.5, 1: 1.5, 2: 1.5}
    assert len(list((tmp_path / "events").iterdir())) == 3


def test_of_several_processes_one_writes(tmp_path: Path) -> None:
    RunFolder(tmp_path, writes=False, tensorboard=True).metrics.append({"step": 1, "mlm_loss": 1.0})
    assert list(tmp_path.iterdir()) == []
