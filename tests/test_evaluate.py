"""Held-out figures are means over all pairs, each counted once, and the same every time."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from bertjax.config import Config
from bertjax.data.prepare import prepare
from bertjax.evaluate import compile_eval_step, evaluate, evaluate_run
from bertjax.model import Bert, init_params
from bertjax.pretraining import pretrain
from bertjax.recipe import save_config
from bertjax.run import RunFolder
from bertjax.sharding import by_name, make_mesh, rows_here


def test_means_equal_a_slow_loop_over_rows(tiny: Config) -> None:
    prepared = prepare(tiny)
    batches = prepared.held_out_batches
    assert batches.num_sequences % batches.batch_size  # the last batch is not full
    model = Bert(prepared.config.model)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    forward = jax.jit(model.apply)
    losses, hits, next_losses = [], [], []
    for batch in batches.first_epoch():
        mlm, nsp = forward({"params": params}, *batch[:5], batch.cls_positions_bk)
        for row in np.flatnonzero(batch.nsp_weights_bk[:, 0]):
            next_losses.append(-jax.nn.log_softmax(nsp[row, 0])[batch.nsp_labels_bk[row, 0]])
            for slot in np.flatnonzero(batch.mlm_weights_bp[row]):
                label = batch.mlm_labels_bp[row, slot]
                losses.append(-jax.nn.log_softmax(mlm[row, slot])[label])
                hits.append(mlm[row, slot].argmax() == label)
    assert len(next_losses) == batches.num_sequences
    for mesh in (make_mesh(devices=jax.devices()[:1]), make_mesh(), make_mesh(2, 2, 2)):
        placed = jax.device_put(params, by_name(params, mesh))
        rows = rows_here(batches.num_rows, mesh)
        means = evaluate(compile_eval_step(mesh, model), placed, batches.first_epoch(rows.some), rows, mesh)
        assert means["mlm_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert means["mlm_accuracy"] == pytest.approx(np.mean(hits), rel=1e-5)
        assert means["nsp_loss"] == pytest.approx(np.mean(next_losses), rel=1e-5)


def test_a_run_is_evaluated_as_it_was_in_training(tiny: Config) -> None:
    folder = pretrain(tiny)
    name, num_sequences, means, objective = evaluate_run(folder)
    assert name == "wikitext-2/valid" and num_sequences > 30 and objective == "mlm+nsp"
    (line,) = [record for record in RunFolder(folder).metrics() if "held_out_mlm_loss" in record]
    assert line["step"] == 4
    assert {key.removeprefix("held_out_"): value for key, value in line.items() if key != "step"} == means
    # Of 12 rows a batch on 8 devices: evaluation rounds up, and counts the same pairs.
    run = RunFolder(folder)
    odd = dataclasses.replace(run.config(), train=dataclasses.replace(tiny.train, batch_size=12))
    save_config(odd, folder / "config.yaml")
    assert evaluate_run(folder)[2] == pytest.approx(means, rel=1e-5)
    assert evaluate_run(folder, split="train", path=Path(tiny.data.path or ""))[0] == "wikitext-2/train"
