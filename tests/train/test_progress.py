"""What pairs a second leave out, and what a bar shows."""

import io
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

from bertjax.config import TrainConfig
from bertjax.objectives.metrics import Mean
from bertjax.train.progress import Progress, Work


def test_steps_in_which_xla_compiles_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("bertjax.train.progress.time", SimpleNamespace(perf_counter=lambda: clock.now))
    log: Any = SimpleNamespace(close=lambda: None)
    progress = Progress(log, TrainConfig(steps=100, batch_size=8, log_every=100), {"mlm": "MLM"}, "pairs")
    progress.start_at(0, *[lambda step: 2 if step < 4 else 8] * 2)
    names = ("mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy", "skipped_steps", "skipped_in_a_row")
    metrics = {name: Mean(jnp.zeros(()), jnp.ones(())) for name in names}
    # The metrics of step 3 are read when step 4, of another size, was compiled and dispatched.
    for step, seconds in enumerate((50, 1, 40, 2, 2), 1):
        clock.now += seconds
        progress.step_done(metrics)
        assert progress.step == step
    progress.close()
    assert progress.first_seconds == 50
    assert progress.pairs_per_second == (2 + 8 + 8) / (1 + 2 + 2)


class Screen(io.StringIO):
    """A terminal, a hundred characters wide."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("notebook", [False, True])
def test_who_looks_on_sees_losses_tokens_a_second_share_of_the_peak_and_time_left(
    notebook: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("bertjax.train.progress.time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr("sys.stderr", screen := Screen())
    drawn: list[str] = []
    plot: Any = SimpleNamespace(draw=lambda caption="", at_once=False: drawn.append(caption)) if notebook else None
    log: Any = SimpleNamespace(close=lambda: None, append=lambda _: None, append_timings=lambda _: None)
    asked: list[Work] = []

    def work() -> Work:
        asked.append(Work(tokens=50, operations=2e6, peak=round(1e9)))
        return asked[-1]

    train = TrainConfig(steps=4, batch_size=8, log_every=1)
    progress = Progress(log, train, {"mlm": "MLM", "nsp": "NSP"}, "pairs", work=work, plot=plot)
    progress.start_at(0)
    names = ("mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy", "skipped_steps", "skipped_in_a_row")
    metrics = {name: Mean(jnp.zeros(()), jnp.ones(())) for name in names}
    for seconds in (1, 0.08, 0.08):
        clock.now += seconds
        progress.step_done(metrics)
    progress.start_at(3)  # again, as after a loss that leapt
    progress.close()
    assert len(asked) == 1
    line = "mlm 0.000  nsp 0.000  5,000 tokens/s  20% of peak"
    shown = screen.getvalue()
    if notebook:  # no bar, which would begin anew after each line of the log
        assert shown == "" and drawn[2] == f"step 3/4  {line}  00:00 left" and drawn[3:] == [""]
    else:
        assert line in shown and " left" in shown


def test_where_nobody_looks_on_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    log: Any = SimpleNamespace(close=lambda: None)
    progress = Progress(log, TrainConfig(), {}, "pairs", work=lambda: pytest.fail("it was asked"))
    progress.start_at(0)
    progress.close()
