"""Eight simulated devices, no silent broadcasting between ranks, and a corpus small enough to read."""

import functools
import gc
import importlib.metadata
import itertools
import os
import re

# Before jax is first imported. The programs here run for milliseconds and take XLA seconds to make, of which this saves
# more than half; XLA_FLAGS= in the environment tests them as users have them.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    # Gone from jax 0.11 on, where XLA ends a process that names it.
    + (" --xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib") < "0.11" else ""),
)
os.environ["JAX_NUM_CPU_DEVICES"] = "1"  # of the processes that tests start
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # theirs too: each would compile our modules anew, half a second
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the real hub

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from bertjax.cli.terminal import shown_on_terminal
from bertjax.config import BertConfig, Config, DataConfig, LoggingConfig, OptimConfig, TokenizerConfig, TrainConfig
from bertjax.data.prepare import Prepared, prepare
from bertjax.evaluation.evaluate import EvalStep, compile_eval_step
from bertjax.objectives.objective import Objective
from bertjax.runs.folder import RunFolder
from bertjax.train.programs import Programs, make_programs

if TYPE_CHECKING:
    from faulty_store import FaultyStore
    from hub_server import Hub

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keeps bytes out of ids: those of a gzip file hold the second it was made in."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps addresses out of ids, which must be the same in every process of pytest-xdist."""
    for item in items:
        if re.search(r"\bat 0x[0-9a-f]{6}", item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} is named after an address: give it an id, or use pytest's own")


def pytest_collection_finish() -> None:
    """Collects garbage rarely: tracing makes it by the thousand, a twentieth of its time."""
    leave_out_of_collections()
    gc.set_threshold(50_000, 20, 50)


_finished = itertools.count(1)


def pytest_runtest_logfinish() -> None:
    """What stays from test to test, such as JAX's caches, makes a collection of garbage take more than a second."""
    if next(_finished) % 50 == 0:
        leave_out_of_collections()


def leave_out_of_collections() -> None:
    """Makes later collections of garbage pass over all that is there now."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def compile_each_program_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests train the same tiny model over and over, in every process that pytest-xdist starts."""
    session = tmp_path_factory.getbasetemp()
    folder = (session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)  # for the processes that tests start
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session", autouse=True)
def trace_each_program_once() -> Iterator[None]:
    """Runs of one recipe share their jitted functions, which JAX else traces anew for each: seconds of Python."""
    made: dict[Any, Programs] = {}
    eval_steps: dict[Any, EvalStep] = {}
    alone: dict[Any, EvalStep] = {}

    def shared(config: Config, objective: Objective, mesh: Mesh) -> Programs:
        of_model = kind_of(objective.metrics)
        steps = None if config.optim.schedule == "constant" else config.train.steps  # that a program depends on
        train = (steps, config.train.gradient_accumulation_steps, *objective.loss_weights.items())
        of_model = (of_model, id(objective.constants))  # which the programs hold
        key = (config.optim, config.lora, train, of_model, mesh)
        if key not in made:
            programs = make_programs(config, objective, mesh)
            if steps is None:
                train_step = programs.train_step(config.train.steps)
                programs = programs._replace(train_step=lambda _: train_step)
            eval_step = eval_steps.setdefault((of_model, config.lora, mesh), programs.eval_step)
            made[key] = programs._replace(eval_step=eval_step)
        return made[key]

    def shared_eval_step(mesh: Mesh, objective: Objective) -> EvalStep:
        key = (kind_of(objective.metrics), mesh)
        if key not in alone:
            alone[key] = compile_eval_step(mesh, objective)
        return alone[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bertjax.train.loop.make_programs", shared)
        patched.setattr("bertjax.evaluation.evaluate.compile_eval_step", shared_eval_step)
        yield


def kind_of(value: Any) -> Any:
    """What is equal for functions that compute the same: unlike objects for unlike tasks, parts of partial ones."""
    if isinstance(value, functools.partial):
        return (value.func, *map(kind_of, value.args), *value.keywords.items())
    return (value.tobytes(), value.shape) if isinstance(value, np.ndarray) else value


@pytest.fixture(autouse=True)
def away_from_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's cache, nor keeps fewer programs than others because of one before it."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has none, and leases whose heartbeats are quick."""

    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    for name, seconds in (("BEAT", 0.05), ("PATIENCE", 0.5), ("SETTLE", 0.01)):
        monkeypatch.setattr(f"bertjax.storage.lease.{name}", seconds)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Hub"]:
    """An empty hub on loopback, which huggingface_hub asks in place of the real one."""
    from hub_server import hub_for

    with hub_for(monkeypatch, tmp_path_factory.mktemp("hub")) as made:
        yield made


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[type["FaultyStore"]]:
    """An empty store of objects at memory:// URLs; what fails there is tried again at once."""
    from faulty_store import faulty_store

    monkeypatch.setattr("bertjax.storage.remote._DELAYS", (0.0,) * 5)
    with faulty_store() as made:
        yield made


@pytest.fixture(autouse=True)
def no_picture_is_drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end with an empty loss.png, unless a test asks for `pictures`: to draw takes as long as to train.

    Nor is it measured how fast this machine multiplies.
    """
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("bertjax.train.run.plot_losses", lambda _metrics, file, *_: file.touch())
    monkeypatch.setattr("bertjax.train.account.product_rate", lambda *_: 2e9)


@pytest.fixture
def pictures() -> None:
    """A run's losses are drawn."""


@pytest.fixture(autouse=True)
def shown() -> Iterator[None]:
    """What the library logs goes to stdout, as on the command line."""
    with shown_on_terminal():
        yield


@pytest.fixture(scope="session")
def wikitext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with WikiText's three files, of a made-up language in which what follows what can be learned."""
    folder = tmp_path_factory.mktemp("wikitext-2")
    for split, paragraphs in (("train", 60), ("valid", 12), ("test", 12)):
        lines = [" = Title = \n", " \n"]
        for number in range(paragraphs):
            nouns = [f"noun{(number * 3 + i) % 7}" for i in range(4)]
            sentences = [f"The {noun} sees a {noun} near noun{number % 5}" for noun in nouns]
            lines.append(f" {' . '.join(sentences)} . \n")
        (folder / f"wiki.{split}.tokens").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes this many of the eight the only ones that a run sees."""
    there = jax.devices()

    def use(number: int) -> None:
        monkeypatch.setattr(jax, "devices", lambda: there[:number])
        monkeypatch.setattr(jax, "device_count", lambda: number)

    return use


@pytest.fixture
def one_device(devices: Callable[[int], None]) -> None:
    """Programs of one device are compiled in less time than those of two, and kept for all processes of the tests."""
    devices(1)


@pytest.fixture
def two_devices(one_device: None, devices: Callable[[int], None]) -> None:
    """Enough to share work, and cheaper than eight; for a `tiny` run as well."""
    devices(2)


@pytest.fixture
def tiny(wikitext: Path, tmp_path: Path, one_device: None) -> Config:
    """A run of 4 steps that takes seconds, on one device, without biases to trace and save and without a report."""
    return Config(
        run_dir=str(tmp_path / "run"),
        data=DataConfig(path=str(wikitext), cache=str(tmp_path / "cache"), max_length=24),
        tokenizer=TokenizerConfig(min_frequency=1),
        model=BertConfig(
            hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, max_position=32, dropout=0.1, biases=False
        ),
        optim=OptimConfig(learning_rate=1e-2),
        train=TrainConfig(steps=4, batch_size=8, log_every=1),
        logging=LoggingConfig(report=False),
    )


@pytest.fixture
def prepared(tiny: Config) -> Prepared:
    """The text of that run."""
    return prepare(tiny)


@pytest.fixture
def run(prepared: Prepared) -> RunFolder:
    """Its folder, in which nothing is trained yet."""
    folder = RunFolder(prepared.config.run_dir)
    folder.create(prepared)
    return folder
