"""What pairs a second leave out."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

from bertjax.config import TrainConfig
from bertjax.objectives.metrics import Mean
from bertjax.train.progress import Progress


def test_steps_in_which_xla_compiles_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("bertjax.train.progress.time", SimpleNamespace(perf_counter=lambda: clock.now))
    log: Any = SimpleNamespace(close=lambda: None)
    progress = Progress(log, TrainConfig(steps=100, batch_size=8, log_every=100), {"mlm": "MLM"}, "pairs")
    progress.start_at(0, lambda step: 2 if step < 4 else 8)
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
