"""Encoding a sentence imports nothing that only training, writing or drawing needs."""

import subprocess
import sys
from pathlib import Path

REFERENCE = Path(__file__).parents[1] / "reference"
ENCODE = """
import sys
import bertjax
bertjax.Encoder.load(sys.argv[1]).encode("a crane is flying", truncate=True)
print(*sys.modules)
"""


def imported(folder: Path) -> set[str]:
    """Returns the modules that a fresh process has imported once it has encoded with a folder's model."""
    command = [sys.executable, "-W", "ignore", "-c", ENCODE, str(folder)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_hugging_face_folder_is_read_without_what_writes_a_run() -> None:
    modules = imported(REFERENCE / "bert")
    assert "bertjax.inference.encoder" in modules
    assert modules.isdisjoint(
        {"orbax", "tensorstore", "matplotlib", "tensorboardX", "optax", "jsonargparse", "pyarrow"}
    )
    assert not [name for name in modules if name.startswith(("bertjax.runs.", "bertjax.train.", "bertjax.objectives."))]


def test_a_run_is_read_without_what_writes_or_draws_one() -> None:
    modules = imported(REFERENCE / "run" / "at_step_3")
    assert "bertjax.runs.folder" in modules
    assert modules.isdisjoint({"bertjax.runs.checkpoint_writer", "matplotlib", "tensorboardX", "optax", "pyarrow"})
