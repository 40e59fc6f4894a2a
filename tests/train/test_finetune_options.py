"""What holds of pretraining holds of fine-tuning: parts of a batch, bfloat16, an average, a budget, and a kill."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from labelled_texts import but

from bertjax import finetune
from bertjax.config import Config
from bertjax.data.prepare_task import prepare_task
from bertjax.hub.folder import leaves
from bertjax.inference.pretrained import load, model_config
from bertjax.parallel.sharding import make_mesh, place_rows, rows_here
from bertjax.runs.folder import RunFolder
from bertjax.train.step import gradients
from bertjax.train.tasks.course import task_of
from bertjax.train.tasks.labelled import LABELLED


def test_parts_of_a_batch_give_its_gradients_and_so_do_those_of_an_epochs_last(
    small: Config, one_layer: Path, two_devices: None
) -> None:
    """With labels that weigh unlike, smoothed, over two devices: a part has other weights than the next."""
    small = but(small, model=model_config(one_layer), task__class_weights="balanced", task__label_smoothing=0.1)
    prepared, mesh = prepare_task(but(small, model__dropout=0.0)), make_mesh()
    objective, batches = task_of(LABELLED, prepared, mesh).objective, prepared.train_batches
    params, key = jax.jit(objective.init)(jax.random.key(1)), jax.random.key(0)
    assert [batches.batch_size_at(step) for step in (0, 1)] == [8, 4]
    rows = rows_here(batches.num_rows, mesh, parts=4)
    whole, parts = (jax.jit(functools.partial(gradients, objective, gradient_accumulation_steps=n)) for n in (1, 4))
    for step in (0, 1):
        batch = place_rows(batches.batch_at(step, rows.some), rows, mesh)
        (expected, one), (found, other) = (compute(params, batch, key) for compute in (whole, parts))
        for (path, leaf), (_, theirs) in zip(leaves(found), leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, theirs, rtol=1e-4, atol=1e-6, err_msg=path)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), other, one)
        assert float(one["label_accuracy"].weight) == batches.batch_size_at(step)


def test_in_bfloat16_with_an_average_and_a_budget_a_kill_changes_nothing(
    small: Config, tmp_path: Path, kill: Callable, states: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget has the rate fall from step 2 on, to end at step 4."""
    monkeypatch.setattr("bertjax.train.budget.Budget.last_step", lambda _, step, every: 4 if step == 2 else None)
    small = but(small, optim__schedule="wsd", optim__ema_decay=0.5, train__budget="1h", checkpoint__every=2)
    small = but(small, train__precision="bfloat16", model__dropout=0.1)
    run = finetune(small)
    (state,) = states
    lines = RunFolder(run).metrics.read()
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert len(rates) == 4 and rates[:3] == pytest.approx([0.01] * 3) and rates[3] < 0.01
    given = dict(leaves(load(run).params))
    for path, leaf in leaves(state.average):
        np.testing.assert_array_equal(given[path], leaf, err_msg=path)
    assert np.abs(state.params["pooler"]["kernel"] - given["pooler/kernel"]).max() > 1e-4

    killed = but(small, run_dir=str(tmp_path / "killed"))
    kill(killed, 3)  # after the decision
    finetune(killed, resume=True)
    jax.tree.map(np.testing.assert_array_equal, states[1], state)
    assert RunFolder(killed.run_dir).metrics.read() == lines
