"""Real runs of several processes, on loopback: equal to those of one, and what becomes of them when one stops."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from odd_bert import write_odd_bert
from ports import free_port, listening

import bertjax
from bertjax.cli.main import main
from bertjax.config import CheckpointConfig, Config, DistributedConfig, EvalConfig, LoggingConfig, MeshConfig
from bertjax.config.recipes import save_config
from bertjax.data.prepare import prepare
from bertjax.errors import ExitCode
from bertjax.evaluation.evaluate import evaluate_run
from bertjax.parallel.distributed import find_rendezvous
from bertjax.parallel.sharding import make_mesh, rows_here
from bertjax.runs.folder import RunFolder
from bertjax.train.pretrain import pretrain

# One device and one thread each, and programs that are compiled in half the time.
CHEAP = {"JAX_NUM_CPU_DEVICES": "1", "NPROC": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}


class Started:
    """A run's processes."""

    def __init__(
        self, config: Config, size: int, *, resume: bool = False, timeout: float = 60, kubernetes: bool = False
    ):
        recipe = Path(config.run_dir).with_suffix(".yaml")
        save_config(config, recipe)
        self.run, self.port = RunFolder(config.run_dir), free_port()
        cache = jax.config.jax_compilation_cache_dir
        environment = {**os.environ, **CHEAP, "JAX_COMPILATION_CACHE_DIR": cache}
        command = [sys.executable, "-m", "bertjax", "pretrain", f"--config={recipe}", *["--resume"] * resume]
        command += [f"--distributed.timeout={timeout}"]
        own: list[dict[str, str]] = [{} for _ in range(size)]
        if kubernetes:  # as docs/cluster/job.yaml and an indexed Job set them
            environment |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{self.port}", "JAX_NUM_PROCESSES": str(size)}
            own = [{"JOB_COMPLETION_INDEX": str(index)} for index in range(size)]
        else:
            command += [f"--distributed.coordinator=127.0.0.1:{self.port}", f"--distributed.num_processes={size}"]
        self.processes = [
            subprocess.Popen(
                [*command, *[f"--distributed.process_id={index}"] * (not kubernetes)],
                env=environment | own[index],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(size)
        ]

    def wait_for_step(self, step: int) -> None:
        deadline = time.monotonic() + 90
        while not any(line["step"] >= step for line in self.run.metrics.read()):
            assert time.monotonic() < deadline and all(process.poll() is None for process in self.processes)
            time.sleep(0.02)

    def ends(self) -> list[tuple[int, str, str]]:
        """Exit code, stdout and stderr of each."""
        texts = [process.communicate(timeout=90) for process in self.processes]
        return [(process.returncode, *text) for process, text in zip(self.processes, texts, strict=True)]

    def go_well(self, warning: str = "") -> None:
        for index, (code, out, err) in enumerate(self.ends()):
            assert code == 0 and re.fullmatch(warning, err), err
            assert bool(out) == (index == 0)  # nobody else prints


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    all_started = []

    def start(*args: object, **kwargs: object) -> Started:
        all_started.append(Started(*args, **kwargs))  # type: ignore[arg-type]
        return all_started[-1]

    yield start
    for started in all_started:
        for process in started.processes:
            process.kill()
            process.communicate()


def longer(config: Config, folder: Path, steps: int, **changes: object) -> Config:
    train = dataclasses.replace(config.train, steps=steps)
    return dataclasses.replace(config, run_dir=str(folder), train=train, **changes)


@pytest.fixture
def recipe(tiny: Config) -> Config:
    """One layer, for every process compiles it."""
    model = dataclasses.replace(tiny.model, num_layers=1)
    return dataclasses.replace(tiny, model=model, eval=EvalConfig(every=2), checkpoint=CheckpointConfig(every=2))


def assert_same_run(one: Path, other: Path) -> None:
    """Every line of the metrics, and the parameters in the end."""
    ours, theirs = RunFolder(one).metrics.read(), RunFolder(other).metrics.read()
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for line, other_line in zip(ours, theirs, strict=True):
        assert line == pytest.approx(other_line, rel=1e-5, abs=1e-6)
    vectors = [bertjax.Encoder.load(run).encode(["the noun1 sees a noun2", "near noun3"]) for run in (one, other)]
    np.testing.assert_allclose(*vectors, atol=1e-4)


# Equal to one process.


def test_the_same_run_on_one_and_on_two_processes(
    recipe: Config, tmp_path: Path, two_devices: None, start: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    model = dataclasses.replace(recipe.model, frequency_bias=True, cooccurrence_embedding=True)
    recipe = dataclasses.replace(recipe, model=model, optim=dataclasses.replace(recipe.optim, ema_decay=0.5))
    whole = pretrain(longer(recipe, tmp_path / "whole", 4))
    run = tmp_path / "run"
    pretrain(longer(recipe, run, 2))
    # A row is on both processes, and each has half of the model.
    start(longer(recipe, run, 4, mesh=MeshConfig(tensor=2)), 2, resume=True).go_well()
    assert_same_run(run, whole)
    assert RunFolder(run).config().distributed == DistributedConfig()  # who took part is nothing of the run's own
    held_out = RunFolder(run).metrics.read()[-1]
    means = evaluate_run(run)[2]  # by one process
    assert means == pytest.approx({name: held_out[f"held_out_{name}"] for name in means}, rel=1e-5)
    command = [sys.executable, "-m", "bertjax", "launch", "-n", "2", "--", "evaluate", str(run)]
    launched = subprocess.run(command, env={**os.environ, **CHEAP}, capture_output=True, text=True, timeout=90)
    assert launched.returncode == 0, launched.stderr
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 0
    alone = capsys.readouterr().out.splitlines()
    assert launched.stdout.splitlines()[-len(alone) :] == alone


def test_a_run_that_starts_from_a_folder(recipe: Config, tmp_path: Path, start: Callable) -> None:
    """Each process reads it, and gives its devices their share."""
    recipe = dataclasses.replace(recipe, init_from=str(write_odd_bert(tmp_path / "theirs")))
    whole = pretrain(longer(recipe, tmp_path / "whole", 2))
    run = tmp_path / "run"
    reporting = longer(recipe, run, 2, mesh=MeshConfig(fsdp=2), logging=LoggingConfig(report=True))
    fitting = dataclasses.replace(reporting.train, gradient_accumulation_steps="auto")  # all the same number
    start(dataclasses.replace(reporting, train=fitting), 2, kubernetes=True).go_well()
    assert RunFolder(run).config().train.gradient_accumulation_steps == 1
    page = RunFolder(run).report.read_text(encoding="utf-8")  # which one writes, of what all were asked
    assert "Hidden words and the model’s guesses" in page and "Layer 1, head 2" in page
    for ours, theirs in zip(RunFolder(run).metrics.read(), RunFolder(whole).metrics.read(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)


# When one stops.


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_other_says_so_and_the_run_goes_on(
    recipe: Config, tmp_path: Path, start: Callable, victim: int
) -> None:
    endless = longer(recipe, tmp_path / "run", 100_000, checkpoint=CheckpointConfig(every=5), eval=EvalConfig())
    started = start(endless, 2)
    started.wait_for_step(12)
    if victim == 1 and Path("/proc/net/tcp").exists():  # JAX's coordinator, which would listen everywhere
        assert listening(started.port) <= {"0100007F", "0000000000000000FFFF00000100007F"} != set()
    begin = time.monotonic()
    started.processes[victim].kill()
    code, _, err = started.ends()[1 - victim]
    seconds = time.monotonic() - begin
    assert code == ExitCode.PEER_LOST and seconds < 5, err
    told = re.search(rf"^bertjax: process {victim} of 2, on {socket.gethostname()}, died; (.*)$", err, re.MULTILINE)
    assert told and "Traceback" not in err
    newest = max(int(path.name) for path in (started.run.path / "checkpoints").iterdir() if path.name.isdecimal())
    assert told[1].startswith(f"the last checkpoint is {started.run.path}/checkpoints/{newest}; go on with bertjax")
    pretrain(longer(endless, started.run.path, newest + 2), resume=True)
    steps = [line["step"] for line in started.run.metrics.read() if "mlm_loss" in line]
    assert steps == list(range(1, newest + 3))


ABORTED = """
import bertjax.parallel.aborts, ctypes, os, threading
bertjax.parallel.aborts.delay_aborts()
threading.Timer(0.5, lambda: {last_words}).start()
ctypes.CDLL(None).abort()  # which does not hold Python's lock, as JAX's threads do not
"""


@pytest.mark.parametrize("last_words, code", [("os._exit(1)", 1), ("None", -signal.SIGABRT)])
def test_jax_does_not_end_a_process_before_it_has_said_why(last_words: str, code: int) -> None:
    command = [sys.executable, "-c", ABORTED.format(last_words=last_words)]
    assert subprocess.run(command, timeout=60).returncode == code


def test_a_signal_to_one_stops_all_at_the_same_step(recipe: Config, tmp_path: Path, start: Callable) -> None:
    endless = longer(recipe, tmp_path / "run", 100_000, checkpoint=CheckpointConfig(), eval=EvalConfig(every=7))
    started = start(endless, 2)
    started.wait_for_step(5)
    started.processes[1].send_signal(signal.SIGTERM)
    ends = started.ends()
    assert [code for code, _, _ in ends] == [ExitCode.STOPPED] * 2, ends
    (step,) = re.findall(r"stopped after step (\d+), saved; go on with", ends[0][1])
    (saved,) = [path.name for path in (started.run.path / "checkpoints").iterdir()]
    assert saved == step and started.run.metrics.read()[-1]["step"] == int(step)


def test_what_one_cannot_do_is_told_by_all(recipe: Config, tmp_path: Path, start: Callable) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    begin = time.monotonic()
    (code, _, err), (other_code, _, other_err) = start(longer(recipe, tmp_path / "run", 2), 2).ends()
    assert time.monotonic() - begin < 30
    why = f"{tmp_path}/run exists and is left as it is; "
    assert code == other_code == 2
    assert err.startswith(f"bertjax: {why}") and err.count("\n") == 1
    assert other_err.startswith(f"bertjax: process 0 of 2, on {socket.gethostname()}, stopped: {why}")
    assert other_err.count("\n") == 1


# Rows and places.


@pytest.mark.parametrize("mesh_shape", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_processes_have_all_the_rows_between_them(
    mesh_shape: tuple[int, int, int], tiny: Config, devices: Callable[[int], None]
) -> None:
    devices(8)
    mesh = make_mesh(*mesh_shape)
    batches = prepare(tiny).train_batches
    rows = rows_here(batches.num_rows, mesh, parts=2)
    assert rows.some == range(rows.total) and rows.total % (mesh_shape[0] * mesh_shape[1] * 2) == 0


def test_alone_without_a_cluster() -> None:
    assert find_rendezvous(DistributedConfig()) == (None, None)
    assert find_rendezvous(DistributedConfig("127.0.0.1:1", 1, 0)) == (None, None)


def test_slurm_tells_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = {"JOB_ID": "4099", "STEP_NODELIST": "node[03-04],other", "NTASKS": "8", "PROCID": "5", "LOCALID": "1"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    place, devices = find_rendezvous(DistributedConfig())
    assert place is not None and devices == [1]
    assert (place.index, place.size, place.host, place.port, place.bind) == (5, 8, "node03", 61443, None)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert find_rendezvous(DistributedConfig()) == (None, None)


def test_open_mpi_tells_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911")
    for name, value in {"SIZE": "4", "RANK": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    place, devices = find_rendezvous(DistributedConfig(bind_address="10.96.0.1"))
    assert place is not None and devices == [0]
    assert (place.index, place.size, place.host, place.bind) == (2, 4, "10.96.0.1", "10.96.0.1")
