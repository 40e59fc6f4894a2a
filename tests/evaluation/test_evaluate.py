"""Held-out figures are means over all pairs, each counted once, and the same every time."""

import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from drawn_params import drawn_params
from jax.sharding import Mesh
from refusals import refusal

from bertjax.config import Config, MeshConfig, TokenizerConfig
from bertjax.config.recipes import save_config
from bertjax.data.prepare import prepare
from bertjax.data.sources import wikitext
from bertjax.data.statistics.frequencies import CLASSES, label_counts, word_classes, word_counts
from bertjax.errors import BertjaxError
from bertjax.evaluation.evaluate import compile_eval_step, evaluate, evaluate_run, render
from bertjax.models.bert import Bert
from bertjax.objectives.pretraining import metrics_by_class, pretraining_objective
from bertjax.parallel.sharding import by_name, make_mesh, rows_here
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params
from bertjax.train.open_run import check_same
from bertjax.train.pretrain import pretrain


def test_means_equal_a_slow_loop_over_rows(tiny: Config, devices: Callable[[int], None]) -> None:
    devices(8)
    prepared = prepare(tiny)
    batches = prepared.held_out_batches
    assert batches.num_sequences % batches.batch_size  # the last batch is not full
    model = Bert(prepared.config.model)
    params = drawn_params(model)
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
        means = evaluate(
            compile_eval_step(mesh, pretraining_objective(model.clone(mesh=mesh))),
            placed,
            batches.first_epoch(rows.some),
            rows,
            mesh,
        )
        assert means["mlm_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert means["mlm_accuracy"] == pytest.approx(np.mean(hits), rel=1e-5)
        assert means["nsp_loss"] == pytest.approx(np.mean(next_losses), rel=1e-5)


def test_a_run_is_evaluated_as_it_was_in_training(tiny: Config) -> None:
    folder = pretrain(tiny)
    name, num_sequences, means, objective, half, _, same_text = evaluate_run(folder)
    assert name == "wikitext-2/valid" and num_sequences > 30 and objective == "mlm+nsp"
    assert half is None and same_text
    (line,) = [record for record in RunFolder(folder).metrics.read() if "held_out_mlm_loss" in record]
    assert line["step"] == 4
    in_training = {key.removeprefix("held_out_"): value for key, value in line.items() if key != "step"}
    assert means == pytest.approx(in_training, rel=1e-6)
    # Of 9 rows a batch on 2 devices: evaluation rounds up, and counts the same pairs.
    run = RunFolder(folder)
    odd = dataclasses.replace(run.config(), train=dataclasses.replace(tiny.train, batch_size=9))
    save_config(odd, folder / "config.yaml")
    assert evaluate_run(folder)[2] == pytest.approx(means, rel=1e-5)
    on_train = evaluate_run(folder, split="train", path=tiny.data.path)
    assert on_train.corpus == "wikitext-2/train" and on_train.same_text


def test_the_mesh_is_the_one_asked_for_or_the_runs_own(
    tiny: Config, devices: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices(8)
    folder = pretrain(dataclasses.replace(tiny, mesh=MeshConfig(fsdp=4)))
    made: list[dict[str, int]] = []

    def spy(*sizes: int) -> Mesh:
        mesh = make_mesh(*sizes)
        made.append(dict(mesh.shape))
        return mesh

    monkeypatch.setattr("bertjax.evaluation.evaluate.make_mesh", spy)
    its_own, asked = evaluate_run(folder), evaluate_run(folder, mesh=MeshConfig(tensor=2))
    assert made == [{"data": 2, "fsdp": 4, "tensor": 1}, {"data": 4, "fsdp": 1, "tensor": 2}]
    assert asked.means == pytest.approx(its_own.means, rel=1e-5)
    with pytest.raises(BertjaxError, match="mesh.fsdp=3"):
        evaluate_run(folder, mesh=MeshConfig(fsdp=3))
    odd = dataclasses.replace(RunFolder(folder).config(), mesh=MeshConfig(data=1, fsdp=16))
    save_config(odd, folder / "config.yaml")
    assert evaluate_run(folder).means == pytest.approx(its_own.means, rel=1e-5)
    assert made[-1] == {"data": 8, "fsdp": 1, "tensor": 1}


def test_classes_of_words_sum_up_to_the_whole(tiny: Config, devices: Callable[[int], None], tmp_path: Path) -> None:
    text = "The cat saw 7 dogs . A cat ran . The dog saw 12 cats . It ran far away . \n" * 12
    for split in ("train", "valid"):
        (tmp_path / f"wiki.{split}.tokens").write_text(
            text + (" The xylophone . A quince fell . \n" * (split == "valid"))
        )
    data = dataclasses.replace(tiny.data, path=str(tmp_path), predict_unk=True, mlm_probability=0.5)
    config = dataclasses.replace(tiny, data=data, tokenizer=TokenizerConfig(min_frequency=2))
    folder = pretrain(config)
    of_all = evaluate_run(folder)
    assert list(of_all.classes) == list(CLASSES)
    counts, losses, accuracies = np.array(list(of_all.classes.values())).T
    labels = label_counts(prepare(config).held_out_batches.first_epoch(), RunFolder(folder).tokenizer().vocab_size)
    assert counts.sum() == labels.sum() and counts.min() > 0
    assert (counts * losses).sum() / counts.sum() == pytest.approx(of_all.means["mlm_loss"], rel=1e-6)
    assert (counts * accuracies).sum() / counts.sum() == pytest.approx(of_all.means["mlm_accuracy"], rel=1e-6)
    # On other devices, and when the vocabulary is split, the same.
    devices(8)
    its_own, mesh = RunFolder(folder).config(), make_mesh(2, 2, 2)
    model = Bert(its_own.model, mesh=mesh)
    classes_v = word_classes(word_counts(prepare(config).train, len(labels)), RunFolder(folder).tokenizer())
    batches = prepare(config).held_out_batches
    rows = rows_here(batches.num_rows, mesh)
    params = load_params(RunFolder(folder), its_own, mesh)
    step = compile_eval_step(mesh, metrics_by_class(pretraining_objective(model), model, classes_v, CLASSES))
    means = evaluate(step, params, batches.first_epoch(rows.some), rows, mesh)
    assert [means[f"{name} mlm_loss"] for name in CLASSES] == pytest.approx(losses, rel=1e-5)


def test_halves_make_up_the_whole(tiny: Config) -> None:
    folder = pretrain(tiny)
    even, odd, whole = (evaluate_run(folder, half=half) for half in ("even", "odd", None))
    assert even.num_sequences + odd.num_sequences == whole.num_sequences and even.means != odd.means
    for name in whole.classes:
        parts = [half.classes[name] for half in (even, odd)]
        predictions, loss, accuracy = whole.classes[name]
        assert sum(part.predictions for part in parts) == predictions
        assert sum(part.predictions * part.loss for part in parts) == pytest.approx(predictions * loss, rel=1e-5)


def test_no_other_text_takes_the_place_of_one_that_is_gone(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").mkdir()
    for split in ("train", "valid"):
        shutil.copy(Path(tiny.data.path or "") / f"wiki.{split}.tokens", tmp_path / "text")
    data = dataclasses.replace(tiny.data, path=str(tmp_path / "text"), fallback="python-docs")
    folder = pretrain(dataclasses.replace(tiny, data=data))
    (tmp_path / "text" / "wiki.valid.tokens").unlink()
    monkeypatch.setattr(wikitext, "download", functools.partial(wikitext.download, mirrors=()))
    monkeypatch.delenv("BERTJAX_DATA", raising=False)
    with pytest.raises(BertjaxError, match="nor is it in .*: put the files into data.path"):
        evaluate_run(folder)


def test_a_held_out_text_may_move_but_not_change(tiny: Config, tmp_path: Path) -> None:
    """Of a run without a checkpoint, which is missed where the text will do."""
    then, now = tmp_path / "then", tmp_path / "now"
    then.mkdir()
    for split, number in (("train", 90), ("valid", 30)):
        lines = [f"crane {i % 7} flies over {i % 5}.\nit lands near {i % 3}." for i in range(number)]
        (then / f"{split}.txt").write_text("\n\n".join(lines))
    data = dataclasses.replace(tiny.data, source="files", sentence="line", workers=1)
    data = dataclasses.replace(data, path=f"{then}/train.txt", eval_path=f"{then}/valid.txt")
    run = RunFolder(tmp_path / "run")
    run.create(prepare(dataclasses.replace(tiny, data=data)))
    then.rename(now)
    moved = dataclasses.replace(run.config().data, path=f"{now}/train.txt", eval_path=f"{now}/valid.txt")
    check_same(run, run.config(), prepare(dataclasses.replace(run.config(), data=moved)))
    evaluated = functools.partial(refusal, functools.partial(evaluate_run, run.path, eval_path=moved.eval_path))
    assert "there is no file at" in refusal(evaluate_run, run.path) and "no checkpoint" in evaluated()
    (now / "valid.txt").write_text("\n\n".join(lines[:-1]))
    message = evaluated()
    assert f"files/valid is not the text that {run.path} was made with" in message and "by other_text" in message
    assert "no checkpoint" in evaluated(split="test") and "no checkpoint" in evaluated(other_text=True)
    run.environment_file.write_text("{}")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bertjax.evaluation.evaluate._logger.warning", (warned := []).append)
        assert "no checkpoint" in evaluated()
    assert "whether files/valid has changed since the run is not known" in str(warned)


def test_a_run_of_before_words_were_counted(tiny: Config) -> None:
    folder = pretrain(tiny)
    counts = folder / "word_counts.npy"
    np.save(counts, np.zeros(3, np.int64))
    with pytest.raises(BertjaxError, match="word_counts.npy is not of this run's vocabulary"):
        evaluate_run(folder)
    counts.write_bytes(b"")
    with pytest.raises(BertjaxError, match="word_counts.npy cannot be read"):
        evaluate_run(folder)
    counts.unlink()
    evaluation = evaluate_run(folder)
    assert (
        not evaluation.classes
        and "mlm_loss" in evaluation.means
        and "runs that keep word_counts.npy" in render(evaluation)
    )
