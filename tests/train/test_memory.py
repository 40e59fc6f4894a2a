"""Batches are computed in as few parts as fit the devices' memory, and what does not fit is told on one line."""

import dataclasses
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from ended_runs import Killed, assert_same_end, die
from labelled_texts import but

from bertjax.config import CheckpointConfig, Config
from bertjax.errors import BertjaxError
from bertjax.parallel.process_group import SingleProcess
from bertjax.parallel.sharding import make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.train.memory import in_parts_that_fit, step_memory
from bertjax.train.pretrain import pretrain


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Makes it the devices' memory."""

    def have(size: int | None) -> None:
        monkeypatch.setattr("bertjax.train.memory.device_memory", lambda: size)

    return have


def task_in(parts: int, *, batch_size: int, rows: int, devices: int) -> Any:
    config = Config(train=dataclasses.replace(Config().train, batch_size=batch_size, gradient_accumulation_steps=parts))
    batches = types.SimpleNamespace(num_rows=rows)
    mesh = make_mesh(devices, devices=jax.devices()[:devices])
    return types.SimpleNamespace(config=config, train_batches=batches, mesh=mesh, objective=None)


@pytest.mark.parametrize("fixed, shared", [(0, 1000), (400, 1000), (10, 3), (900, 7000)])
@pytest.mark.parametrize("batch_size, rows, devices", [(24, 24, 1), (24, 10, 1), (30, 30, 2), (7, 7, 1)])
def test_it_is_the_least_number(
    memory: Callable, monkeypatch: pytest.MonkeyPatch, fixed: int, shared: int, batch_size: int, rows: int, devices: int
) -> None:
    """Against all there are, for memory that a step needs of each kind: whatever its rows, and for each of them."""

    def needed(parts: int) -> int:
        return fixed + -(-shared // parts)

    monkeypatch.setattr("bertjax.train.memory.step_memory", lambda task, _: needed(task.config.train.parts))
    may_be = [parts for parts in range(1, rows // devices + 1) if batch_size % parts == 0]

    def find() -> tuple[int, Any]:
        return in_parts_that_fit(
            lambda parts: task_in(parts, batch_size=batch_size, rows=rows, devices=devices),
            SingleProcess(),
            lambda config, *_: config,  # type: ignore
        )

    for limit in (0, 50, 300, 500, 700, 1000, 1500, 10_000):
        memory(limit)
        expected = next((parts for parts in may_be if needed(parts) <= limit), None)
        if expected is None:
            with pytest.raises(BertjaxError, match="a step needs .* of memory on each device, in as many parts as"):
                find()
            continue
        parts, programs = find()
        made: Any = programs(None, None, None)  # type: ignore
        assert parts == made.train.parts == expected
    memory(None)  # nobody tells
    assert find()[0] == 1


@pytest.fixture
def auto(tiny: Config) -> Config:
    return but(tiny, train__gradient_accumulation_steps="auto", checkpoint=CheckpointConfig(every=2))


def test_a_run_is_as_one_of_so_many_parts_whatever_kills_it(
    auto: Config,
    tmp_path: Path,
    memory: Callable,
    on_call: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needed: list[int] = []

    def seen(*what: Any) -> int:
        needed.append(step_memory(*what))
        return needed[-1]

    monkeypatch.setattr("bertjax.train.memory.step_memory", seen)
    memory(2**40)
    assert RunFolder(pretrain(but(auto, run_dir=str(tmp_path / "one"), train__steps=1))).config().train.parts == 1
    assert "parts" not in capsys.readouterr().out
    in_two = pretrain(but(auto, run_dir=str(tmp_path / "two"), train__gradient_accumulation_steps=2))

    folder = RunFolder(auto.run_dir)
    memory(needed.pop() - 1)
    with on_call(die, "bertjax.train.run.in_parts_that_fit"), pytest.raises(Killed):
        pretrain(auto)
    assert folder.config().train.gradient_accumulation_steps == "auto"
    capsys.readouterr()
    with on_call(die, "bertjax.train.loop.place_rows", 4), pytest.raises(Killed):
        pretrain(auto, resume=True)
    said = capsys.readouterr().out
    assert "NOTICE:   each batch is computed in 2 parts: in one a step needs " in said
    assert folder.config().train.gradient_accumulation_steps == 2
    memory(0)  # decided once
    pretrain(auto, resume=True)
    assert len(needed) == 2  # compiled, in one part and in two, before the second kill alone
    assert_same_end(folder.path, in_two)


def test_too_little_memory_for_any_number_of_parts(auto: Config, memory: Callable) -> None:
    memory(1)
    with pytest.raises(
        BertjaxError, match=r"^a step needs [\d.]+ MB of memory .*, and 0.0 MB are there; give --train.re"
    ):
        pretrain(auto)
    memory(2**40)  # as other options may need less: the refused run is not in their way
    assert RunFolder(pretrain(but(auto, train__remat=True))).config().train.remat


@pytest.mark.parametrize("where, made_steps", [("place_rows", False), ("evaluate", True)])
def test_memory_that_runs_out_is_told_with_what_to_do(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, where: str, made_steps: bool
) -> None:
    def run_out(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 21818298512 bytes.")

    monkeypatch.setattr(f"bertjax.train.loop.{where}", run_out)
    told = "there is not enough memory on cpu, where 21.8 GB more were needed at once; give --train.gradient_accumula"
    with pytest.raises(BertjaxError, match=told):
        pretrain(tiny)
    assert RunFolder(tiny.run_dir).begun == made_steps
