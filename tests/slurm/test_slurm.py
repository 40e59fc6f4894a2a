"""Real jobs of SLURM: processes that find each other, and one script, queued again until its run has finished."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_cluster import said

from bertjax.config import CheckpointConfig, Config, EvalConfig, LoggingConfig
from bertjax.config.recipes import save_config
from bertjax.errors import ExitCode
from bertjax.runs.folder import RunFolder

SCRIPTS = Path(__file__).parents[2] / "scripts" / "slurm"
STEPS = 400


@pytest.fixture
def recipe(slurm: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("JAX_COMPILATION_CACHE_DIR",):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"JAX_NUM_CPU_DEVICES": "1", "NPROC": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    (command := tmp_path / "bin" / "bertjax").parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m bertjax "$@"\n')  # this checkout's
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(
        tiny,
        model=dataclasses.replace(tiny.model, num_layers=1),
        train=dataclasses.replace(tiny.train, steps=STEPS),
        eval=EvalConfig(),
        checkpoint=CheckpointConfig(every=50),
        logging=LoggingConfig(report=False),
    )
    save_config(config, tmp_path / "recipe.yaml")
    return tmp_path / "recipe.yaml"


def wait_for(what: Callable[[], object], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, said("squeue", "--long") + said("scontrol", "show", "job")
        time.sleep(0.05)


def last_step(run: Path) -> int:
    return max((line["step"] for line in RunFolder(run).metrics.read()), default=0)


def tasks(run: Path) -> list[int]:
    """The processes of a run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = status.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(run) in words and b"srun" not in words[0] and b"pretrain" in words:
            if b"bash" not in os.path.basename(words[0]):
                found.append(int(status.parent.name))
    return sorted(found)


def test_one_script_until_the_run_has_finished(recipe: Path, tmp_path: Path) -> None:
    """Stopped by USR1 it saves; after the death of a process all end; each time it goes on, and ends as if alone."""
    command = ["bertjax", "pretrain", "--config", str(recipe), "--run_dir", str(tmp_path / "whole")]
    whole = subprocess.run(["srun", "-n", "2", *command], capture_output=True, text=True, timeout=300)
    assert whole.returncode == 0, whole.stderr
    lines = whole.stdout.splitlines()
    assert len([line for line in lines if line.startswith("train:")]) == 1 and "[Gloo]" not in whole.stdout
    again = subprocess.run(["srun", "-n", "2", *command, "--resume"], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "has made its" in again.stdout, again.stderr  # finished, quietly

    exported = ["srun", "-n", "2", "bertjax", "export", str(tmp_path / "whole"), str(tmp_path / "exported")]
    both = subprocess.run(exported, capture_output=True, text=True, timeout=300)
    assert both.returncode == 0 and both.stdout.count("exported to ") == 1, both.stderr  # the other ends quietly
    assert (tmp_path / "exported" / "model.safetensors").is_file()

    run, log = tmp_path / "run", tmp_path / "log"
    options = ["--parsable", f"--output={log}", "--time=60"]
    job = said("sbatch", *options, str(SCRIPTS / "pretrain.sbatch"), "--config", str(recipe), "--run_dir", str(run))

    def state() -> str:
        return re.findall(r"JobState=(\w+)", said("scontrol", "show", "job", job))[0]

    def restarts() -> None:
        wait_for(lambda: state() == "PENDING")
        wait_for(lambda: subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"]).returncode == 0)

    wait_for(lambda: last_step(run) >= 20)
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)
    restarts()
    (step,) = re.findall(r"stopped after step (\d+), saved", log.read_text())
    wait_for(lambda: last_step(run) >= int(step) + 60)
    victim = tasks(run)[-1]
    begin = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: not tasks(run))
    assert time.monotonic() - begin < 20
    restarts()
    assert len(re.findall(r"bertjax: process \d of 2, on \S+, died; the last checkpoint is ", log.read_text())) == 1
    wait_for(lambda: state() not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"))
    told = said("scontrol", "show", "job", job)
    assert "JobState=COMPLETED" in told and "ExitCode=0:0" in told and "Restarts=2" in told, told + log.read_text()
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_bad_input_is_told_once_and_the_job_fails(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    log = tmp_path / "log"
    arguments = ["--config", str(recipe), "--run_dir", str(tmp_path / "run")]
    done = subprocess.run(
        ["sbatch", "--wait", f"--output={log}", str(SCRIPTS / "pretrain.sbatch"), *arguments], capture_output=True
    )
    assert done.returncode == ExitCode.BAD_INPUT, log.read_text()
    told = [line for line in log.read_text().splitlines() if line.startswith("bertjax: ")]
    assert len(told) == 2 and sum("exists and is left as it is" in line for line in told) == 2
    assert sum(line.startswith("bertjax: process 0 of 2, on ") for line in told) == 1  # by the other's


def test_an_array_of_seeds(recipe: Path, tmp_path: Path) -> None:
    options = ["--wait", "--array=0-1", f"--output={tmp_path}/log-%a"]
    arguments = [str(tmp_path / "seeds"), "--config", str(recipe), "--train.steps", "3"]
    done = subprocess.run(["sbatch", *options, str(SCRIPTS / "array.sbatch"), *arguments], capture_output=True)
    assert done.returncode == 0, (tmp_path / "log-0").read_text()
    assert [RunFolder(tmp_path / "seeds" / str(seed)).config().seed for seed in range(2)] == [0, 1]


def test_a_corpus_by_an_array(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(f"the crane is flying . it is {number} ." for number in range(3000)))
    text = ["--config", str(recipe), "--data.source", "files", "--data.path", str(tmp_path / "a.txt")]
    options = ["--wait", "--array=0-1", f"--output={tmp_path}/%a.log"]
    done = subprocess.run(["sbatch", *options, str(SCRIPTS / "prepare.sbatch"), "2", *text], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert all(f"share {number}/2: " in (tmp_path / f"{number}.log").read_text() for number in range(2))
    merged = subprocess.run(["bertjax", "prepare", "--merge", *text], capture_output=True, text=True)
    assert merged.returncode == 0 and "train:    files/train: " in merged.stdout, merged.stderr
