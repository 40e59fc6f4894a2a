"""The packages that a GPU check needs: those that are there, or a virtual environment with all of them.

The standard library is enough to import this.
"""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

from benchmarks.environment import ROOT

VENV = ROOT / ".venv-gpu"
_RUN_BY = {"cuda13": ("cuda13", "cuda12"), "cuda12": ("cuda12",)}  # a driver runs what was built for an older CUDA too


class Prepared(NamedTuple):
    """A Python that runs the parts."""

    python: str
    notes: list[str]  # what a reader of the figures must know


def cuda_version() -> tuple[int, int] | None:
    """Returns the newest CUDA that the NVIDIA driver here can run; None where there is no driver."""
    try:
        done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return read_cuda_version(done.stdout)


def read_cuda_version(said: str) -> tuple[int, int] | None:
    """Returns the version in nvidia-smi's heading, such as "CUDA Version: 12.8"."""
    found = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def jax_extra(cuda: tuple[int, int] | None) -> str | None:
    """Returns the extra of jax that a driver can run; None for the CPU, or where the driver is too old for any."""
    if cuda is None or cuda < (12, 0):
        return None
    return "cuda13" if cuda >= (13, 0) else "cuda12"


def requirements(extra: str | None) -> list[str]:
    """Returns what pip has to install: the project's own dependencies, and jax for these GPUs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *([f"jax[{extra}]"] if extra else [])]


def missing(extra: str | None) -> list[str]:
    """Returns the packages that this Python lacks, whatever versions of the others it has."""
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in requirements(None)]
    lacking = [name for name in names if not _installed(name)]
    if extra and not any(_installed(f"jax-{one}-plugin") for one in _RUN_BY[extra]):
        lacking.append(f"jax-{extra}-plugin")
    return lacking


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def prepare(extra: str | None, *, install: bool, seconds: float, venv: Path = VENV) -> Prepared:
    """Finds or makes a Python that has all packages; where none can be had, this one, and what it lacks.

    Args:
      extra: of jax, for the GPUs here.
      install: whether pip may be called.
      seconds: that installing may take.
      venv: folder of the environment that is made.
    """
    lacking = missing(extra)
    if not lacking:
        return Prepared(sys.executable, [])
    if not install:
        return Prepared(sys.executable, [f"missing: {', '.join(lacking)}; parts that need them fail"])
    python = str(venv / "bin" / "python")
    options = ["--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "10"]
    pip = [python, "-m", "pip", "install", *options, "-c", str(ROOT / "constraints.txt"), *requirements(extra)]
    try:
        for command in ([sys.executable, "-m", "venv", str(venv)], pip):
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines() or [f"code {done.returncode}"]
                break
        else:
            return Prepared(python, [f"installed into {venv.name}: {', '.join(lacking)}"])
    except subprocess.TimeoutExpired:
        said = [f"it took over {seconds:.0f} s"]
    return Prepared(
        sys.executable, [f"missing: {', '.join(lacking)}; parts that need them fail. pip could not help: {said[-1]}"]
    )
