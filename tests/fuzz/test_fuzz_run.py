"""Damaged run folders and manifests: what is there, or a clear refusal."""

import shutil
import tempfile
from pathlib import Path

import pytest
from answers import REFUSED, answer, damaged_bytes, damaged_json
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import HEADS
from bertjax.data.prepare import Prepared, prepare
from bertjax.runs.folder import RunFolder
from bertjax.runs.plots import draw_losses
from bertjax.storage.manifest import MANIFEST, damage, write_manifest
from bertjax.train.divergence import Skip
from bertjax.train.open_run import check_same


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A folder like a checkpoint's, with its manifest."""
    folder = tmp_path_factory.mktemp("checkpoints") / "7"
    for name in ("params/ocdbt.process_0/d/1", "params/_METADATA", "opt_state/manifest"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 9)
    write_manifest(folder, 7)
    return folder


@given(data=st.data())
def test_manifests(checkpoint, data):
    """No other bytes than those that were written pass for the manifest of these files."""
    path = checkpoint / MANIFEST
    whole = path.read_bytes()
    damaged = data.draw(
        damaged_bytes(whole) | damaged_json(whole.decode()).map(lambda text: text.encode("utf-8", "replace"))
    )
    try:
        path.write_bytes(damaged)
        assert (damage(checkpoint, 7) is None) == (damaged == whole)
    finally:
        path.write_bytes(whole)
    assert damage(checkpoint, 7) is None and damage(checkpoint, 8) is not None


@given(data=st.data())
def test_files_of_a_checkpoint(checkpoint, data):
    path = data.draw(st.sampled_from([path for path in sorted(checkpoint.rglob("*")) if path.is_file()]))
    whole = path.read_bytes()
    damaged = data.draw(damaged_bytes(whole))
    try:
        path.write_bytes(damaged)
        assert (damage(checkpoint, 7) is None) == (damaged == whole)
    finally:
        path.write_bytes(whole)


@pytest.fixture
def run(tiny) -> tuple[Path, Prepared]:
    """A run's folder with every file but checkpoints."""
    folder, prepared = RunFolder(tiny.run_dir), prepare(tiny)
    folder.create(prepared)
    for step in (1, 2, 3):
        folder.metrics.append({"step": step, "mlm_loss": 0.5})
    folder.decisions.add_skip(Skip(1, 2))
    return folder.path, prepared


@given(data=st.data())
@pytest.mark.parametrize("name", ["config.yaml", "tokenizer.json", "environment.json", "metrics.jsonl", "skipped.json"])
def test_files_of_a_run(run, name, data):
    """Every reader of a run's folder answers, whichever of its files is damaged."""
    source, prepared = run
    with tempfile.TemporaryDirectory() as copied:
        folder = RunFolder(shutil.copytree(source, copied, dirs_exist_ok=True))
        path = folder.path / name
        kinds = damaged_bytes(path.read_bytes())
        if name.endswith("json"):
            kinds |= damaged_json(path.read_text()).map(lambda text: text.encode("utf-8", "surrogatepass"))
        path.write_bytes(data.draw(kinds))
        answer(folder.config)
        answer(folder.tokenizer)
        answer(folder.decisions.skips)
        answer(folder.metrics.has_evaluation, 2)
        if name == "metrics.jsonl":
            answer(lambda: draw_losses(folder.metrics.read(), "title", HEADS["mlm+nsp"]))
        if answer(folder.metrics.drop_after, 2) is not REFUSED:
            assert all(line["step"] <= 2 for line in folder.metrics.read())
        answer(lambda: check_same(folder, folder.config(), prepared))
