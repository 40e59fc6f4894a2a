"""The account of a run's speed and memory."""

import functools
import time
import types
from typing import cast

import pytest

from bertjax.data.prepare import Prepared
from bertjax.models.operations import training_operations
from bertjax.runs.memory import peak_memory
from bertjax.train.account import account, work_of
from bertjax.train.progress import Progress


def test_rates_are_of_the_runs_own_batches(prepared: Prepared) -> None:
    progress = cast(Progress, types.SimpleNamespace(step=3, pairs_per_second=100.0))
    config, batches = prepared.config, prepared.train_batches
    told = account(lambda: work_of(config, batches), progress, began=time.monotonic() - 5)
    batch = next(batches.first_epoch())
    assert told["step"] == 3 and told["seconds"] == pytest.approx(5, abs=0.5)
    assert told["tokens_per_second"] == pytest.approx((batch.sequences_bt > 0).sum() * 100 / 8, rel=1e-3)
    assert told["operations_per_second"] == pytest.approx(training_operations(config.model, batch) * 100 / 8, rel=1e-3)
    assert told["peak_operations_per_second"] == 2e9  # of all the CPU devices, which share its cores
    assert "device_bytes" not in told  # a CPU's memory is the process's
    at_once = account(None, progress, began=time.monotonic())
    assert at_once.keys() == {"step", "seconds", "host_bytes"} and at_once["host_bytes"] == peak_memory() > 2**26


def test_what_cannot_be_measured_is_left_out(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> float:
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr("bertjax.train.account.product_rate", full)
    progress = cast(Progress, types.SimpleNamespace(step=3, pairs_per_second=100.0))
    work = functools.partial(work_of, prepared.config, prepared.train_batches)
    told = account(work, progress, began=time.monotonic())
    assert told.keys() == {"step", "seconds", "host_bytes"}
    said = "warning: how fast the devices could be is not measured (RuntimeError: RESOURCE_EXHAUSTED: out of memory)\n"
    assert capsys.readouterr().err == said
