"""Which build of jax a driver gets, and what is done where there is no network."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import install
from benchmarks.gpu.install import cuda_version, jax_extra, missing, prepare, read_cuda_version, requirements
from benchmarks.gpu.peaks import bf16_flops

HEADING = "| NVIDIA-SMI 570.124.06    Driver Version: 570.124.06    CUDA Version: 12.8     |"


@pytest.mark.parametrize(
    "said, extra",
    [
        (HEADING, "cuda12"),
        (HEADING.replace("12.8", "13.0"), "cuda13"),
        (HEADING.replace("CUDA Version: 12.8", "CUDA UMD Version: 13.1"), "cuda13"),
        (HEADING.replace("12.8", "11.8"), None),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", None),
    ],
)
def test_the_driver_chooses_the_build_of_jax(said: str, extra: str | None) -> None:
    assert jax_extra(read_cuda_version(said)) == extra


def test_without_nvidia_smi_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert cuda_version() is None


def test_what_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing(None) == [] and prepare(None, install=True, seconds=1) == (sys.executable, [])
    assert missing("cuda13") == ["jax-cuda13-plugin"]  # tests run on a CPU
    monkeypatch.setattr(install, "_installed", lambda name: name != "jax-cuda13-plugin")
    assert missing("cuda13") == []  # what is there for CUDA 12 runs too
    assert requirements("cuda13")[-1] == "jax[cuda13]" and "jax>=0.10" in requirements("cuda13")


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_installed", lambda name: name not in ("optax", "jax-cuda12-plugin"))


def test_without_pip_it_is_told_in_a_line_what_is_missing(lacking: None) -> None:
    found = prepare("cuda12", install=False, seconds=1)
    assert found == (sys.executable, ["missing: optax, jax-cuda12-plugin; parts that need them fail"])


@pytest.mark.parametrize("code, end", [(1, "no network"), (None, "it took over 1 s")])
def test_without_a_network_what_is_there_is_used(
    lacking: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int | None, end: str
) -> None:
    called: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        called.append(command)
        if "pip" in command and code is None:
            raise subprocess.TimeoutExpired(command, 1)
        return subprocess.CompletedProcess(command, code or 0 if "pip" in command else 0, "", "trying\nno network\n")

    monkeypatch.setattr(subprocess, "run", run)
    python, (note,) = prepare("cuda12", install=True, seconds=1, venv=tmp_path / "venv")
    assert python == sys.executable and note.startswith("missing: optax") and note.endswith(end)
    assert called[1][0] == str(tmp_path / "venv/bin/python") and "jax[cuda12]" in called[1]


def test_what_pip_installs_is_in_a_folder_of_its_own(
    lacking: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "", ""))
    python, (note,) = prepare("cuda12", install=True, seconds=1, venv=tmp_path / "venv")
    assert python == str(tmp_path / "venv/bin/python") and note == "installed into venv: optax, jax-cuda12-plugin"


def test_peaks() -> None:
    kinds = ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H200", "NVIDIA A100-SXM4-80GB", "NVIDIA L4")
    assert [bf16_flops(kind) for kind in kinds] == [989e12, 756e12, 989e12, 312e12, 121e12]
    assert bf16_flops("NVIDIA L40S") == 362e12 and bf16_flops("cpu") is None and bf16_flops("Tesla T4") is None
