"""With a clock of its own a run ends in its time, and its learning rate has fallen by then."""

import pytest

from bertjax.config import OptimConfig
from bertjax.train.budget import Budget
from bertjax.train.optimizer import make_schedule


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(seconds: float, *, step_seconds: float, steps: int, spent: float = 0.0, start: int = 0) -> tuple[int, float]:
    """The last step and the seconds that it took to it, compiling for 3 and asking every 5."""
    clock = Clock()
    budget = Budget(seconds, spent=spent, decay_share=0.2, steps=steps, afterwards=7, clock=clock)
    clock.now += 10  # until the text is read
    budget.compiling_begins()
    clock.now += 3
    budget.compiled()
    step, last, decided = start + 1, steps, None
    budget.first_step_done(step)
    while step < last:
        step, clock.now = step + 1, clock.now + step_seconds
        if decided is None and step % 5 == 0 and (decided := budget.last_step(step, 5)):
            last, clock.now = decided, clock.now + 3
    return last, budget.spent + 3 + 7 * step_seconds


@pytest.mark.parametrize("seconds", [60, 600, 5000])
@pytest.mark.parametrize("step_seconds", [0.01, 0.1, 1.0])
def test_it_ends_in_time_and_wastes_little(seconds: float, step_seconds: float) -> None:
    last, took = run(seconds, step_seconds=step_seconds, steps=10**9)
    assert took <= seconds
    assert took > 0.93 * seconds - 5 - 15 * step_seconds


def test_a_run_that_has_time_enough_makes_its_steps() -> None:
    assert run(600, step_seconds=0.1, steps=100)[0] == 100
    assert run(600, step_seconds=0.1, steps=10**9)[0] > 4000


def test_what_earlier_processes_spent_counts() -> None:
    """Half of the time is spent with 2000 steps of 0.1 s made, not with none."""
    last, took = run(600, step_seconds=0.1, steps=10**9, spent=300, start=2000)
    assert took <= 600 and 4000 < last < 4900


def test_the_rate_falls_from_the_moment_of_the_decision_on() -> None:
    clock = Clock()
    budget = Budget(100, spent=0, decay_share=0.25, steps=10**6, afterwards=0, clock=clock)
    budget.first_step_done(1)
    for step in range(2, 200):
        clock.now += 1
        if last := budget.last_step(step, 1):
            break
    assert last == step + step // 3 and 70 < step < 76
    rate = make_schedule(OptimConfig(schedule="wsd", decay_share=0.25, learning_rate=1.0), last)
    assert [float(rate(update)) for update in (0, step - 1)] == [1.0, 1.0]
    assert 0.9 < rate(step + 1) < 1 and 0 < rate(last - 1) < 0.05
