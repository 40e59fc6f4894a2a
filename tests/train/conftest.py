"""Fine-tuning that takes a second, ways to look at it and to kill it, and what happens to any run inside a call."""

import contextlib
import functools
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from labelled_texts import examples, write_model, write_table

from bertjax import finetune, load_config
from bertjax.config import Config
from bertjax.data.batching.packed import PackedBatches
from bertjax.runs.folder import RunFolder
from bertjax.train.loop import Task, fit


@pytest.fixture(scope="session")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer, as from elsewhere."""
    return write_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers, likewise."""
    return write_model(tmp_path_factory.mktemp("models") / "base", num_layers=2)


@pytest.fixture
def small(one_layer: Path, tmp_path: Path, devices: Callable[[int], None]) -> Config:
    """Six steps on one device: an epoch has one batch of eight examples and one of four."""
    devices(1)
    train, valid = write_table(tmp_path / "train.csv", examples(12, 1)), write_table(tmp_path / "v.csv", examples(8, 2))
    typed = {"init_from": one_layer, "task.train": train, "task.eval": valid, "run_dir": tmp_path / "run"}
    typed |= {"data.max_length": 16, "train.batch_size": 8, "train.epochs": 3, "train.log_every": 1}
    typed |= {
        "optim.learning_rate": 0.01,
        "optim.schedule": "constant",
        "optim.warmup_share": "null",
        "logging.report": False,
    }
    return load_config("classify", [f"{key}={value}" for key, value in typed.items()])


class Killed(Exception):
    """Stands for kill -9: nothing is written after it."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[Config, int], None]:
    """Runs until the batch of a step, counted from 0, is asked for."""
    batch_at: Callable = PackedBatches.batch_at

    def until(self: PackedBatches[Any], last: int, step: int, rows: range | None = None) -> Any:
        if step == last:
            raise Killed
        return batch_at(self, step, rows)

    def run(config: Config, step: int) -> None:
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(PackedBatches, "batch_at", functools.partialmethod(until, step))
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


@pytest.fixture
def on_call(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`on_call(do, "room.function", number)` calls `do` first, in the call of that number, until the block's end."""

    @contextlib.contextmanager
    def hooked(do: Callable[[], None], target: str, number: int = 1, last: str = "") -> Iterator[None]:
        """Calls count whose last argument ends like `last`."""
        original, calls = pkgutil.resolve_name(target), itertools.count(1)

        def function(*args, **settings):
            if str(args[-1] if args else "").endswith(last) and next(calls) == number:
                do()
            return original(*args, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(target, function)
            yield
            assert next(calls) > number, f"{target} was not called {number} times"

    return hooked
