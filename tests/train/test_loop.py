"""What the loop hands to a step is on the devices already, and of one type; the step is compiled in time."""

import dataclasses
import functools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from bertjax.config import CheckpointConfig, Config
from bertjax.runs.folder import RunFolder
from bertjax.train import loop
from bertjax.train.pretrain import pretrain
from bertjax.train.programs import Programs
from bertjax.train.state import TrainState


class Guarded:
    """A step that nothing is sent to the devices for while it is called."""

    def __init__(self, step: Any) -> None:
        self.step, self.lower, self.calls = step, step.lower, 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        with jax.transfer_guard("disallow"):
            return self.step(*args)


def test_a_step_waits_for_nothing_from_the_host(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    make_programs, steps = loop.make_programs, []

    def guarded(*args: Any) -> Programs:
        programs = make_programs(*args)

        def train_step(number: int) -> Any:
            steps.append(Guarded(programs.train_step(number)))
            return steps[-1]

        return programs._replace(train_step=train_step)

    monkeypatch.setattr(loop, "make_programs", guarded)
    pretrain(tiny)
    assert [step.calls for step in steps] == [tiny.train.steps]


@pytest.mark.parametrize("number", [1, 2])
def test_all_steps_are_of_one_program(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: Callable[[int], None], number: int
) -> None:
    """JAX traces and compiles anew for a state of another type, which the place of its arrays is part of."""
    state_at, best_of, types = loop._state_at, loop._best_of, {}

    def began(run: Any, checkpoints: Any, step: int) -> TrainState:
        state = state_at(run, checkpoints, step)
        types[f"of step {step}"] = jax.tree.map(jax.typeof, state)
        return state

    def ended(run: Any, checkpoints: Any, state: TrainState, best: Any) -> TrainState:
        types["at the end"] = jax.tree.map(jax.typeof, state)
        return best_of(run, checkpoints, state, best)

    devices(number)
    monkeypatch.setattr(loop, "_state_at", began)
    monkeypatch.setattr(loop, "_best_of", ended)
    config = dataclasses.replace(tiny, checkpoint=CheckpointConfig(every=2), run_dir=str(tmp_path / "run"))
    folder = RunFolder(pretrain(config))
    shutil.rmtree(folder.checkpoint_folder / str(config.train.steps))
    pretrain(config, resume=True)
    assert list(types) == ["of step 0", "at the end", "of step 2"]
    assert types["of step 0"] == types["of step 2"] == types["at the end"]


def test_the_step_is_compiled_while_the_state_is_made(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    state_at, compile_ahead, meeting = loop._state_at, loop.compile_ahead, threading.Barrier(2, timeout=60)

    def meet(do: Any, *args: Any) -> Any:
        meeting.wait()
        return do(*args)

    monkeypatch.setattr(loop, "_state_at", functools.partial(meet, state_at))
    monkeypatch.setattr(loop, "compile_ahead", functools.partial(meet, compile_ahead))
    pretrain(tiny)
    assert RunFolder(tiny.run_dir).metrics.read()[-1]["step"] == tiny.train.steps
