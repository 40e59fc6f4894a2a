"""Scripts are doors: each reaches its command from any folder, even one where another "benchmarks" lies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(
    "script, usage",
    [("bench.py", "usage: python -m benchmarks NAME"), ("torture.py", "usage: python -m benchmarks torture [--kills")],
)
def test_a_door_opens_from_any_folder(script: str, usage: str, tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__main__.py").write_text("raise SystemExit('another one')")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(SCRIPTS / script), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(usage), done.stderr


def test_every_script_is_a_door() -> None:
    assert all(len(file.read_text(encoding="utf-8").splitlines()) < 20 for file in SCRIPTS.glob("*.py"))
