"""Runs of each objective: what they record, print and draw of their heads."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from bertjax.cli.main import main
from bertjax.config import HEADS, Config, DataConfig, EvalConfig, Objective
from bertjax.errors import BertjaxError
from bertjax.models.bert import Bert, init_params
from bertjax.parallel.sharding import make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.runs.metrics import figures
from bertjax.runs.parameters import load_params
from bertjax.train.pretrain import pretrain


def test_figures_are_of_the_heads_that_had_something_to_predict() -> None:
    means = {f"{head}_{what}": value for value, head in enumerate(("mlm", "nsp")) for what in ("loss", "accuracy")}
    assert figures(means, HEADS["mlm+sop"]) == [("MLM", 0, 0), ("SOP", 1, 1)]
    assert figures(means, HEADS["mlm"]) == [("MLM", 0, 0)]
    assert figures({"nsp_loss": 1}, HEADS["mlm"], prefix="held_out_") == []
    assert {DataConfig(objective=objective).sequences for objective in HEADS} == {"pairs", "sequences"}


@pytest.mark.parametrize("objective", ["mlm+sop", "mlm"])
def test_a_run(tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], objective: Objective) -> None:
    data = dataclasses.replace(tiny.data, objective=objective, mask_unit="span", row_length=48)
    model = dataclasses.replace(tiny.model, embedding_norm=True, biases=True)
    config = dataclasses.replace(tiny, data=data, model=model, eval=EvalConfig(every=2))
    run = RunFolder(pretrain(config))
    printed = capsys.readouterr().out
    with_pairs = objective == "mlm+sop"
    names = {f"{head}_{what}" for head in HEADS[objective] for what in ("loss", "accuracy")}
    for line in run.metrics.read():
        of_heads = {key for key in line if key.endswith(("mlm_loss", "mlm_accuracy")) or "nsp" in key}
        assert of_heads in (names, {f"held_out_{name}" for name in names}), line

    assert main(["evaluate", str(run.path)]) == 0
    assert main(["export", str(run.path), str(tmp_path / "exported")]) == 0
    card = (tmp_path / "exported" / "README.md").read_text()
    said = {"run": printed, "evaluation": capsys.readouterr().out, "card": card.partition("```")[0]}
    for where, text in said.items():
        assert "NSP" not in text and "nsp" not in text, where
        assert ("SOP loss" in text) == with_pairs and "MLM loss" in text, where
        assert ("pairs" in text, "sequences" in text) == (with_pairs, not with_pairs), where
    assert ("  sop " in printed) == with_pairs and "held out at step 2: MLM loss" in printed

    trained = load_params(run, run.config(), make_mesh(1, 1, 1, devices=jax.devices()[:1]))
    fresh = init_params(Bert(run.config().model), jax.random.key(0))
    for part in ("pooler", "nsp"):
        same = [np.array_equal(*two) for two in zip(*map(jax.tree.leaves, (trained[part], fresh[part])), strict=True)]
        assert all(same) != with_pairs

    other = dataclasses.replace(config, data=dataclasses.replace(data, objective="mlm+nsp"))
    with pytest.raises(BertjaxError, match=f"data.objective=mlm.nsp .the run has {objective[:3]}.*resume with the run"):
        pretrain(other, resume=True)
