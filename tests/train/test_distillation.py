"""Pretraining with a teacher: it is needed to go on, and nothing of it is in what the run leaves."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from drawn_params import drawn_params
from labelled_texts import but

from bertjax import pretrain
from bertjax.config import BertConfig, Config
from bertjax.data.prepare import Prepared
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.export import export_run
from bertjax.hub.folder import leaves, write_folder
from bertjax.inference.pretrained import load
from bertjax.models.bert import Bert
from bertjax.runs.folder import RunFolder


def write_teacher(folder: Path, tokenizer: Tokenizer, *, seed: int = 0, max_position: int = 32) -> Path:
    config = BertConfig(tokenizer.vocab_size, 16, 2, 2, 32, max_position, init_scale=0.5)
    write_folder(config, jax.device_get(drawn_params(Bert(config), seed)), tokenizer, folder, card="")
    return folder


@pytest.fixture
def student(tiny: Config, prepared: Prepared, tmp_path: Path, devices: Callable[[int], None]) -> Config:
    """Half as wide as its teacher, whose vocabulary it has, whatever its own section says."""
    teacher = write_teacher(tmp_path / "teacher", prepared.tokenizer)
    devices(1)
    config = but(tiny, distill__teacher=str(teacher), model__hidden_size=8, model__biases=True, checkpoint__every=2)
    return but(config, tokenizer__min_frequency=50)


def test_a_run_learns_from_its_teacher_and_leaves_nothing_of_it(student: Config, tmp_path: Path) -> None:
    run = RunFolder(pretrain(student))
    first, *_, last, evaluation = run.metrics.read()
    assert last["hidden_loss"] < first["hidden_loss"] and evaluation["held_out_logits_loss"] > 0
    params = load(run.path).params
    own = {path: leaf.shape for path, leaf in leaves(drawn_params(Bert(run.config().model)))}
    assert {path: leaf.shape for path, leaf in leaves(params)} == own
    saved = run.checkpoint_folder / "4" / "params"
    assert (
        "teacher_projection" in (saved / "_METADATA").read_text() and "block_1" not in (saved / "_METADATA").read_text()
    )
    export_run(run, tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "out").params, params)
    for path in tmp_path.glob("out/**/*.*"):
        assert b"teacher" not in path.read_bytes(), path

    killed = tmp_path / "killed"
    shutil.copytree(run.path, killed)
    shutil.rmtree(killed / "checkpoints" / "4")
    shutil.move(student.distill.teacher or "", tmp_path / "moved")
    again = but(student, run_dir=str(killed), distill__teacher=str(tmp_path / "moved"))
    pretrain(again, resume=True)
    assert RunFolder(killed).metrics.file.read_bytes() == run.metrics.file.read_bytes()
    jax.tree.map(np.testing.assert_array_equal, load(killed).params, params)

    shutil.rmtree(tmp_path / "moved")
    write_teacher(tmp_path / "moved", run.tokenizer(), seed=1)
    with pytest.raises(BertjaxError, match=r"not made with the distill.teacher=.*moved found now.*give the same one"):
        pretrain(again, resume=True)
    with pytest.raises(BertjaxError, match="not made with the distill.teacher=None"):
        pretrain(but(RunFolder(killed).config(), run_dir=str(killed), distill__teacher=None), resume=True)


def test_a_teacher_that_cannot_teach_is_refused_before_anything_is_made(
    student: Config, prepared: Prepared, tmp_path: Path
) -> None:
    other = Tokenizer.train(["noun1 is a word of another vocabulary"] * 2, min_frequency=1)
    write_teacher(tmp_path / "other", other)
    with pytest.raises(BertjaxError, match="the vocabulary of .*other is not that of distill.teacher="):
        pretrain(but(student, tokenizer__path=str(tmp_path / "other")))
    write_teacher(tmp_path / "short", prepared.tokenizer, max_position=16)
    with pytest.raises(BertjaxError, match="data.max_length=24 is above the 16 positions of distill.teacher=.*short"):
        pretrain(but(student, distill__teacher=str(tmp_path / "short")))
    assert not Path(student.run_dir).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill__layers": (1,)}, r"distill.layers=\[1\]: model.num_layers=1, whose layers are 0 to 0; give some"),
        ({"distill__layers": (2, 1)}, r"distill.layers=\[2, 1\] does not name layers from 0 on"),
        ({"distill__temperature": 0.0}, "distill.temperature=0.0 is impossible; give a positive number"),
        ({"distill__logits_weight": 0.0, "distill__hidden_weight": 0.0}, "leave nothing to learn from a teacher"),
        ({"distill__mlm_weight": -1.0}, "distill.mlm_weight=-1.0 is impossible; give 0 or more"),
        ({"distill__teacher": "t", "tokenizer__path": "t", "tokenizer__add": "w"}, "adds words that distill.teacher=t"),
    ],
)
def test_impossible_settings_are_refused(tiny: Config, changes: dict, message: str) -> None:
    with pytest.raises(BertjaxError, match=message):
        section = dataclasses.replace(tiny.distill, **{k[9:]: v for k, v in changes.items() if k.startswith("distill")})
        rest = {k[11:]: v for k, v in changes.items() if k.startswith("tokenizer")}
        dataclasses.replace(tiny, distill=section, tokenizer=dataclasses.replace(tiny.tokenizer, **rest))
