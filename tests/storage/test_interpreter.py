"""Modules of the user's that are called as Python's own are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertjax.storage.interpreter import module_command


@pytest.fixture
def namesakes(tmp_path: Path) -> Path:
    """A folder with modules that Python, and all that is installed, import under the same names."""
    for name in ("argparse", "enum", "json", "queue", "random", "types", "typing", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the namesake is imported')")
    return tmp_path


@pytest.mark.parametrize("command", [[sys.executable, "-m", "bertjax"], module_command("bertjax")], ids=["-m", "own"])
def test_nothing_is_imported_from_where_it_is_started(namesakes: Path, command: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    argv = ["pretrain", "--config=tiny", "--train.steps", "0"]
    done = subprocess.run([*command, *argv], cwd=namesakes, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.split("=")[0]) == (2, "bertjax: train.steps")
