"""What of a trained model learns on: frozen layers, layers that start anew, and rates that fall with the depth."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labelled_texts import examples, write_model, write_table

from bertjax import Classifier, finetune, load_config
from bertjax.config import BertConfig, Config
from bertjax.data.batching.labelled import LabelledBatch, LabelledBatches
from bertjax.errors import BertjaxError
from bertjax.hub.folder import leaves
from bertjax.inference.pretrained import load
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import params_template
from bertjax.models.parts import split
from bertjax.objectives.classification import classification_objective
from bertjax.parallel.sharding import make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.train.initial_state import from_folder
from bertjax.train.loop import Task, fit
from bertjax.train.step import gradients


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers."""
    return write_model(tmp_path_factory.mktemp("models") / "base", num_layers=2)


@pytest.fixture
def config(base: Path, tmp_path: Path, two_devices: None) -> Config:
    """Six steps: an epoch has one batch of eight and one of four."""
    train, valid = write_table(tmp_path / "train.csv", examples(12, 1)), write_table(tmp_path / "v.csv", examples(8, 2))
    typed = {"init_from": base, "task.train": train, "task.eval": valid, "run_dir": tmp_path / "run"}
    typed |= {"data.max_length": 16, "train.batch_size": 8, "train.epochs": 3, "train.log_every": 1}
    typed |= {"checkpoint.every": 2, "eval.every": 2, "optim.learning_rate": 0.01, "logging.report": "false"}
    return load_config("classify", [f"{key}={value}" for key, value in typed.items()])


def but(config: Config, **keys: Any) -> Config:
    for key, value in keys.items():
        section, _, name = key.rpartition("__")
        value = dataclasses.replace(getattr(config, section), **{name: value}) if section else value
        config = dataclasses.replace(config, **{section or name: value})
    return config


class Killed(Exception):
    """Stands for kill -9: nothing is written after it."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[Config, int], None]:
    """Runs until the batch of a step is asked for."""
    batch_at: Callable = LabelledBatches.batch_at

    def until(self: LabelledBatches, last: int, step: int, rows: range | None = None) -> LabelledBatch:
        if step == last:
            raise Killed
        return batch_at(self, step, rows)

    def run(config: Config, step: int) -> None:
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(LabelledBatches, "batch_at", functools.partialmethod(until, step))
            finetune(config, resume=True)

    return run


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The state that each run ends with."""
    found: list[Any] = []

    def kept(folder: RunFolder, task: Task, **how: Any) -> Any:
        outcome = fit(folder, task, **how)
        found.append(jax.device_get(outcome.state))
        return outcome

    monkeypatch.setattr("bertjax.train.run.fit", kept)
    return found


def test_what_is_frozen_stays_bit_for_bit_and_costs_no_optimiser_state(
    config: Config, base: Path, tmp_path: Path, kill: Callable, states: list[Any]
) -> None:
    """With an average, lower rates below, and a kill on the way."""
    frozen = but(config, optim__freeze_layers=1, optim__layer_decay=0.5, optim__ema_decay=0.5)
    run = finetune(frozen)
    before, after = dict(leaves(load(base).params)), dict(leaves(load(run).params))
    for path, leaf in after.items():
        if path.startswith(("block_0/", "embedding_norm/")) or path.endswith("_embedding"):
            np.testing.assert_array_equal(leaf, before[path], err_msg=path)
        elif path.split("/")[0] not in ("classifier", "block_1"):
            assert np.abs(leaf - before[path]).max() > 0, path
    (state,) = states
    learning = {path for path, _ in leaves(state.params)}
    assert {path.split("/")[0] for path in learning} == {"block_1", "pooler", "classifier"}
    moments = [path for path, _ in jax.tree.leaves_with_path(state.opt_state) if "mu" in str(path)]
    assert len(moments) == len(learning) == len(list(leaves(state.average)))

    killed = but(frozen, run_dir=str(tmp_path / "killed"))
    kill(killed, 3)
    finetune(killed, resume=True)
    jax.tree.map(np.testing.assert_array_equal, states[1], state)
    assert RunFolder(killed.run_dir).metrics.read() == RunFolder(run).metrics.read()
    with pytest.raises(BertjaxError, match=r"optim.freeze_layers=0 \(the run has 1\)"):
        finetune(but(killed, optim__freeze_layers=0), resume=True)
    assert len(Classifier.load(run).predict(["word1", "redish"])) == 2


def test_no_way_back_is_computed_below_what_learns(two_devices: None) -> None:
    """With all layers frozen a step has four more products than the way there: two of each linear layer of the head."""
    mesh = make_mesh(devices=jax.devices()[:1])
    model = SequenceClassifier(Bert(BertConfig(9, 4, 2, 1, 4, 4), mesh=mesh), 3)
    objective, params = classification_objective(model), params_template(model)
    batch = LabelledBatch(*(np.ones((1, 4), np.int32) for _ in range(4)), *(np.ones((1, 1), np.int32),) * 3)
    key = jax.random.key(0)
    forward = jax.make_jaxpr(lambda params: objective.metrics(params, batch, key))(params)
    learning, frozen = split(params, 2)
    both = jax.make_jaxpr(lambda learning, frozen: gradients(objective, learning, batch, key, frozen=frozen))
    assert str(both(learning, frozen)).count("dot_general[") == 4 + str(forward).count("dot_general[")


def test_last_layers_start_anew(config: Config, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh, found = make_mesh(devices=jax.devices()[:1]), load(base)
    fresh = jax.tree.map(jnp.zeros_like, found.params)
    config = but(config, task__reinit_layers=1, model=found.config)
    params = from_folder(config, mesh, fresh)
    assert "but for block_1, pooler, which start anew" in capsys.readouterr().out
    for path, leaf in leaves(params):
        anew = path.split("/")[0] in ("block_1", "pooler")
        np.testing.assert_array_equal(leaf, 0 if anew else dict(leaves(found.params))[path], err_msg=path)


@pytest.mark.parametrize("key", ["optim__freeze_layers", "task__reinit_layers"])
def test_there_are_no_more_layers_than_the_model_has(config: Config, key: str) -> None:
    with pytest.raises(BertjaxError, match=r"=3 is above model.num_layers=2 of .*base; give as many at most"):
        finetune(but(config, **{key: 3}))
