"""One output of several tasks: which of them writes it."""

import atexit
from pathlib import Path

import pytest

from bertjax.cli.arguments import is_ours
from bertjax.cli.main import main


def test_of_the_tasks_of_a_step_one_writes_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_end = []
    monkeypatch.setattr(atexit, "register", lambda call, **how: at_the_end.append(lambda: call(**how)))
    out = tmp_path / "new" / "v.npy"
    assert is_ours(out) and is_ours(out)  # outside a step, and then in one
    for name, value in {"JOB_ID": "7", "STEP_ID": "1", "STEP_NUM_TASKS": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert is_ours(out) and not is_ours(out)
    assert is_ours(tmp_path / "of-each-its-own-1.npy") and is_ours(tmp_path / "of-each-its-own-2.npy")
    argv = ["encode", "no run", "--input", __file__, "--out", str(tmp_path / "of-each-its-own-1.npy")]
    assert main(argv) == 0  # quietly, for another task is at it
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # whoever was killed has left its claim
    assert is_ours(out)
    for call in at_the_end:
        call()
    assert not [*tmp_path.iterdir()]
    assert is_ours(Path("/proc/none/v.npy"))  # where it cannot be written, as the command will say
