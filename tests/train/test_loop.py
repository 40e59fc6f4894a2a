"""What the loop hands to a step is on the devices already."""

from typing import Any

import jax
import pytest

from bertjax.config import Config
from bertjax.train import loop
from bertjax.train.pretrain import pretrain
from bertjax.train.programs import Programs


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
