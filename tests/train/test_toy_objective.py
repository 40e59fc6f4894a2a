"""The seam of objectives, used from outside: a task of another kind goes through the same loop, kills and all."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import BertConfig, CheckpointConfig, Config, EvalConfig, OptimConfig, TrainConfig
from bertjax.evaluation.evaluate import compile_eval_step, evaluate
from bertjax.models.bert import Bert, init_params
from bertjax.objectives.metrics import correct, cross_entropy, weighted_mean
from bertjax.objectives.objective import Objective
from bertjax.parallel.sharding import Rows, make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.train.loop import Task, fit
from bertjax.train.state import saved_trees

# A toy objective: is a sequence's first token one of the even ones?


class ToyBatch(NamedTuple):
    tokens_bt: np.ndarray
    labels_b: np.ndarray
    weights_b: np.ndarray


class ToyBatches:
    batch_size = num_rows = num_sequences = 16

    def batch_at(self, step: int, rows: range | None = None) -> ToyBatch:
        tokens_bt = np.random.default_rng(step).integers(5, 25, (16, 8), np.int32)
        batch = ToyBatch(tokens_bt, tokens_bt[:, 0] % 2, np.ones(16, np.float32))
        return batch if rows is None else ToyBatch(*(field[rows.start : rows.stop] for field in batch))

    def num_rows_at(self, step: int) -> int:
        return 16

    def batch_size_at(self, step: int) -> float:
        return 16

    def first_epoch(self, rows: range | None = None) -> Iterator[ToyBatch]:
        yield self.batch_at(10**6, rows)


def toy_objective(model: Bert) -> Objective:
    def init(key: jax.Array) -> dict:
        kernel = jax.random.normal(key, (model.config.hidden_size, 2))
        return init_params(model.clone(mesh=None), key) | {"nsp": {"kernel": kernel}}

    def metrics(params: dict, batch: ToyBatch, dropout_key: jax.Array | None) -> dict:
        one_bt, train = jnp.ones_like(batch.tokens_bt), dropout_key is not None
        place_bt, rngs = jnp.cumsum(one_bt, 1) - 1, {"dropout": dropout_key} if train else None
        args = (batch.tokens_bt, 0 * one_bt, place_bt, one_bt)
        x_btd = model.apply({"params": params}, *args, train=train, rngs=rngs, method="encode")
        logits_b2 = x_btd[:, 0] @ params["nsp"]["kernel"]
        losses_b, correct_b = cross_entropy(logits_b2, batch.labels_b), correct(logits_b2, batch.labels_b)
        weights_b = batch.weights_b
        return {"toy_loss": weighted_mean(losses_b, weights_b), "toy_accuracy": weighted_mean(correct_b, weights_b)}

    return Objective(
        {"toy": "Toy"}, {"toy_loss": 1.0}, init, metrics, lambda batch: {"toy_loss": batch.weights_b.sum()}
    )


# What holds for pretraining holds for it.

CONFIG = Config(
    model=BertConfig(25, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, max_position=8, dropout=0.1),
    optim=OptimConfig(learning_rate=1e-2, ema_decay=0.5),
    train=TrainConfig(steps=60, batch_size=16, gradient_accumulation_steps=2, log_every=1),
    eval=EvalConfig(every=20),
    checkpoint=CheckpointConfig(every=20),
    data=dataclasses.replace(Config().data, max_length=8),
)


class Killed(Exception):
    """Stands for kill -9: nothing is written after it."""


@functools.cache
def toy_task(devices: int) -> Task:
    """One for all runs, which share its programs then."""
    mesh = make_mesh(devices=jax.devices()[:devices])
    return Task(CONFIG, toy_objective(Bert(CONFIG.model, mesh=mesh)), ToyBatches(), ToyBatches(), mesh)


def run(path: Path, devices: int = 1) -> tuple[RunFolder, Task, dict]:
    folder, task = RunFolder(path), toy_task(devices)
    folder.path.mkdir(exist_ok=True)
    state = fit(folder, task).state
    assert state is not None
    return folder, task, jax.device_get(saved_trees(state) | {"eval_params": state.eval_params})


@pytest.mark.parametrize("kill", [5, 30, 59])
def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
    tmp_path: Path, whole: tuple, monkeypatch: pytest.MonkeyPatch, kill: int
) -> None:
    batch_at: Callable = ToyBatches.batch_at
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(ToyBatches, "batch_at", functools.partialmethod(until, kill, batch_at))
        run(tmp_path / "killed")
    folder, _, trees = run(tmp_path / "killed")
    assert folder.metrics.read() == whole[0].metrics.read()
    jax.tree.map(np.testing.assert_array_equal, trees, whole[2])


def until(self: ToyBatches, last: int, batch_at: Callable, step: int, rows: range | None = None) -> ToyBatch:
    if step == last:
        raise Killed
    return batch_at(self, step, rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Task, dict]:
    """A run left alone."""
    return run(tmp_path_factory.mktemp("toy") / "whole")


def test_it_learns_and_is_evaluated(whole: tuple[RunFolder, Task, dict]) -> None:
    folder, task, trees = whole
    lines = folder.metrics.read()
    assert [line["step"] for line in lines if "held_out_toy_loss" in line] == [20, 40, 60]
    assert lines[0]["toy_accuracy"] < 0.8 < folder.metrics.newest_evaluation()["held_out_toy_accuracy"]
    eval_step = compile_eval_step(task.mesh, task.objective)
    means = evaluate(eval_step, trees["eval_params"], ToyBatches().first_epoch(), Rows(range(16), 16), task.mesh)
    assert means["toy_loss"] == folder.metrics.newest_evaluation()["held_out_toy_loss"]


def test_it_is_the_same_on_several_devices(tmp_path: Path, whole: tuple[RunFolder, Task, dict]) -> None:
    folder, _, _ = run(tmp_path / "spread", devices=4)
    losses, alone = ([line.get("toy_loss") for line in one.metrics.read()][:3] for one in (folder, whole[0]))
    assert losses == pytest.approx(alone, rel=1e-4)
