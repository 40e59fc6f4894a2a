"""A run of an older version loads, goes on, and is exported (tests/reference/run)."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from bertjax.cli.main import main
from bertjax.inference.encoder import Encoder
from bertjax.runs.folder import RunFolder

OLD = Path(__file__).parents[1] / "reference" / "run"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, beside its text, in the folder that commands are given in."""
    monkeypatch.chdir(shutil.copytree(OLD, tmp_path / "old"))
    return Path("at_step_3")


def test_its_configuration_is_read_under_todays_names(old: Path) -> None:
    config = RunFolder(old).config()
    assert config.data.mlm_probability == 0.2
    assert config.train.gradient_accumulation_steps == 2
    assert config.model.tie_word_embeddings is False


def test_it_encodes(old: Path) -> None:
    vectors = Encoder.load(old).encode(["the crane sees a river", ("the driver", "a tower")])
    assert vectors.shape == (2, 8) and np.isfinite(vectors).all()


def test_it_goes_on_as_it_would_have_and_is_exported(old: Path, devices: Callable[[int], None]) -> None:
    devices(1)
    how = ["--run_dir", str(old), "--train.steps", "6", "--resume", "--logging.report", "false"]
    assert main(["pretrain", "--config", str(old / "config.yaml"), *how]) == 0
    ours = RunFolder(old).metrics.read()
    theirs = [json.loads(line) for line in Path("metrics_at_step_6.jsonl").read_text().splitlines()]
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for line, expected in zip(ours, theirs, strict=True):
        assert line == pytest.approx(expected, rel=1e-4), line["step"]
    assert main(["evaluate", str(old)]) == 0 and main(["export", str(old), "exported"]) == 0
    ours, theirs = load_file("exported/model.safetensors"), load_file("exported_at_step_6.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, atol=1e-5, err_msg=name)
