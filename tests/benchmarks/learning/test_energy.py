"""Joules of counters and programs made up."""

import os
import stat
import time
from pathlib import Path

import pytest

from benchmarks.learning.energy import Meter


def package(powercap: Path, name: str, microjoules: int, most: int = 999_999) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_packages_are_added_up_and_may_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    one, two = package(tmp_path, "intel-rapl:0", 900_000), package(tmp_path, "intel-rapl:1", 5)
    part = package(tmp_path, "intel-rapl:0:0", 0)
    with Meter(tmp_path) as meter:
        assert meter.joules() == {"processors": 0.0}
        one.write_text("950000")
        part.write_text("777777")
        assert meter.joules() == {"processors": pytest.approx(0.05)}
        one.write_text("100000")  # after 999,999 comes 0
        two.write_text("1005")
        assert meter.joules() == {"processors": pytest.approx(0.05 + 0.15 + 0.001)}
        assert meter.joules() == {"processors": pytest.approx(0.201)}


def test_a_machine_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "powercap" / "intel-rapl:0").mkdir(parents=True)  # whose files may not be read
    with Meter(tmp_path / "powercap") as meter, Meter(tmp_path / "none") as other:
        assert meter.joules() == other.joules() == {}


def test_power_of_gpus_is_added_up_over_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\nwhile true; do echo '0, 300.00'; echo '1, 100.00'; echo '2, [N/A]'; sleep 0.05; done\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with Meter(tmp_path / "none") as meter:
        while "GPUs" not in meter.joules():
            time.sleep(0.01)
        first, start = meter.joules()["GPUs"], time.perf_counter()
        time.sleep(0.5)
        watts = (meter.joules()["GPUs"] - first) / (time.perf_counter() - start)
    assert 200 < watts < 600  # two tell, 400 W together; the edges of half a second are blurred
