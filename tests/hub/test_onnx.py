"""A model as ONNX: in onnxruntime it says what ours says, for any batch and length. Others' loaders: tests/interop."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from refusals import refusal

from bertjax.cli.main import main
from bertjax.config import BertConfig
from bertjax.hub import onnx as hub_onnx
from bertjax.hub.export import export_folder
from bertjax.hub.family import Head
from bertjax.hub.folder import leaves, read_folder, write_folder
from bertjax.hub.onnx import graph_of, write_onnx
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.heads import ClassificationHead
from bertjax.models.parameters import params_template

BERT = Path(__file__).parents[1] / "reference" / "bert"
TINY = BertConfig(40, 16, 2, 2, 24, 32)
MODERN = dataclasses.replace(TINY, norm="pre", first_attention_norm=False, positions="rotary", rotary_theta=160_000.0)
MODERN = dataclasses.replace(MODERN, window=4, global_every=2, local_rotary_theta=100.0, hidden_act="geglu")
MODERN = dataclasses.replace(MODERN, biases=False, token_types=0, pooler_act="hidden_act", pooler_norm=True)
ODD = dataclasses.replace(TINY, norm="pre", norm_kind="rms", embedding_norm=False, positions="rotary", token_types=1)
ODD = dataclasses.replace(ODD, hidden_act="swiglu", share_layers=True, embedding_size=8)
CASES = {
    "BERT": dataclasses.replace(TINY, hidden_act="gelu_tanh"),
    "ModernBERT": MODERN,
    "MPNet": dataclasses.replace(TINY, token_types=0, relative_attention_bias=True),
    "of no family": ODD,
}


def random_params(model: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), params_template(model))


def session(model: "onnx.ModelProto | Path") -> onnxruntime.InferenceSession:
    """Runs a model in one thread, of checked types and shapes."""
    if not isinstance(model, Path):
        onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model if isinstance(model, Path) else model.SerializeToString(), options)


def said(
    by: onnxruntime.InferenceSession, ids_bt: np.ndarray, mask_bt: np.ndarray, segments_bt: np.ndarray
) -> list[np.ndarray]:
    """Its outputs, of those inputs that it has."""
    given = {"input_ids": ids_bt, "attention_mask": mask_bt, "token_type_ids": segments_bt}
    return by.run(None, {of.name: given[of.name].astype(np.int64) for of in by.get_inputs()})


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, mask and segments [3, 32]; two rows have padding."""
    rng, mask_bt = np.random.default_rng(1), np.arange(32) < np.array([[32], [9], [1]])
    return np.where(mask_bt, rng.integers(2, 40, (3, 32)), 1), mask_bt, rng.integers(0, 2, (3, 32))


@pytest.mark.parametrize("case", CASES)
def test_it_says_what_our_encoder_says(case: str) -> None:
    config, (ids_bt, mask_bt, segments_bt) = CASES[case], batch()
    model = Bert(config)
    params = random_params(model)
    runs = session(graph_of(config, dict(leaves(params))))
    (hidden_btd,) = said(runs, ids_bt, mask_bt, segments_bt)
    positions_bt = np.broadcast_to(np.arange(32), ids_bt.shape)
    encode = jax.jit(functools.partial(model.apply, method="encode"))
    ours_btd = np.asarray(encode({"params": params}, ids_bt, segments_bt, positions_bt, mask_bt.astype(np.int32)))
    np.testing.assert_allclose(hidden_btd[mask_bt], ours_btd[mask_bt], atol=1e-5)
    (alone_1td,) = said(runs, ids_bt[1:2, :9], mask_bt[1:2, :9], segments_bt[1:2, :9])
    np.testing.assert_allclose(alone_1td[0], hidden_btd[1, :9], atol=1e-6)  # whose padding changed nothing


def test_robertas_positions_leave_out_padding_wherever_it_is() -> None:
    config = dataclasses.replace(TINY, token_types=1)
    params = dict(leaves(random_params(Bert(config))))
    ids_bt, mask_bt, segments_bt = (array[1:2] for array in batch())
    far = {}
    for pad in (1, None):
        runs = session(graph_of(config, params, pad=pad))
        (right_btd,) = said(runs, ids_bt, mask_bt, segments_bt)
        (left_btd,) = said(runs, np.roll(ids_bt, 23), np.roll(mask_bt, 23), segments_bt)
        far[pad] = np.abs(left_btd[0, 23:] - right_btd[0, :9]).max()
    assert far[1] < 1e-6 and far[None] > 0.01  # BERT's count all


@pytest.mark.parametrize("head", ["labels of texts", "labels of tokens", "answers"])
@pytest.mark.parametrize("case", ["BERT", "ModernBERT"])
def test_heads(head: Head, case: str) -> None:
    config, tokens = CASES[case], batch()
    config = dataclasses.replace(config, classifier_pooling="cls" if case == "BERT" else "mean", classifier_bias=True)
    params = random_params(SequenceClassifier(Bert(config), 2))
    flat, mask_bt = dict(leaves(params)), tokens[1]
    (hidden_btd,) = said(session(graph_of(config, flat)), *tokens)
    found = said(session(graph_of(config, flat, head=head)), *tokens)
    if head == "labels of texts":
        pooled_bd = hidden_btd[:, 0]
        if case == "ModernBERT":
            pooled_bd = np.stack([row[mask].mean(0) for row, mask in zip(hidden_btd, mask_bt, strict=True)])
        of_head = {part: params[part] for part in ("pooler", "classifier")}
        expected = ClassificationHead(config, np.float32, 2).apply({"params": of_head}, pooled_bd, train=False)
        np.testing.assert_allclose(found[0], expected, atol=1e-5)
        return
    logits_bt2 = hidden_btd @ flat["classifier/kernel"] + flat["classifier/bias"]
    found_bt2 = found[0] if head == "labels of tokens" else np.stack(found, -1)
    np.testing.assert_allclose(found_bt2[mask_bt], logits_bt2[mask_bt], atol=1e-5)


def test_a_folder_with_both_widths(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "deep" / "out"
    assert main(["export", str(BERT), str(out), "--format", "onnx", "--int8"]) == 0
    assert "onnxruntime runs " in capsys.readouterr().out
    assert {path.name for path in (out / "onnx").iterdir()} == {"model.onnx", "model_quantized.onnx"}
    assert read_folder(out).config == read_folder(BERT).config
    with np.load(BERT / "expected.npz") as arrays:  # that transformers computed
        theirs = dict(arrays)
    tokens, real_bt = (theirs["tokens"], theirs["real"], theirs["segments"]), theirs["real"] > 0
    (hidden_btd,) = said(session(out / "onnx" / "model.onnx"), *tokens)
    np.testing.assert_allclose(hidden_btd[real_bt], theirs["hidden"][real_bt], atol=1e-5)
    quantized = onnx.load(out / "onnx" / "model_quantized.onnx")
    matrices = [weight for weight in quantized.graph.initializer if len(weight.dims) == 2]
    assert [of.name for of in matrices if of.data_type == onnx.TensorProto.FLOAT] == ["position_embedding"]
    (rough_btd,) = said(session(out / "onnx" / "model_quantized.onnx"), *tokens)
    exact_md, rough_md = hidden_btd[real_bt], rough_btd[real_bt]
    cosine_m = (exact_md * rough_md).sum(1) / np.linalg.norm(exact_md, axis=1) / np.linalg.norm(rough_md, axis=1)
    assert 0.99 < cosine_m.min() < 0.9999  # sums that overflow would make it 0.3
    assert main(["export", str(BERT), str(out), "--format", "onnx"]) == 2
    assert "out exists and is left as it is; give another folder" in capsys.readouterr().err


def test_weights_beyond_a_file_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_onnx, "_BEYOND_ONE_FILE", 0)
    params = dict(leaves(random_params(Bert(TINY))))
    write_onnx(TINY, params, tmp_path, weights="int8")
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx_data", "model_quantized.onnx"}
    tokens = batch()
    expected = said(session(graph_of(TINY, params)), *tokens)[0]
    np.testing.assert_array_equal(said(session(tmp_path / "model.onnx"), *tokens)[0], expected)
    assert said(session(tmp_path / "model_quantized.onnx"), *tokens)[0].shape == expected.shape


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert main(["export", str(BERT), str(out), "--int8"]) == 2
    assert "--int8 is of --format onnx, not of hf; leave it out, or give that" in capsys.readouterr().err
    said = refusal(write_folder, ODD, {}, read_folder(BERT).tokenizer, out, card="", onnx="float32")
    assert "has no place for model.norm=pre" in said and said.endswith("stablehlo, which carries any model")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else name)
    said = refusal(export_folder, BERT, out, onnx="float32")
    assert said == "to write ONNX onnxruntime is needed: pip install 'bertjax[onnx]'"
    assert not list(tmp_path.iterdir())
