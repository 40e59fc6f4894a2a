"""Classification against transformers' BertForSequenceClassification: logits, loss and every gradient, packed here."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from drawn_params import drawn_params
from torch_weights import filled

from bertjax import Classifier, Matcher
from bertjax.config import BertConfig
from bertjax.data.batching.labelled import LabelledBatches
from bertjax.data.examples import Examples
from bertjax.data.targets import Labels, Scores, Targets
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.bert import LAYOUT
from bertjax.hub.folder import leaves, read_model_config, write_folder
from bertjax.hub.task_head import TaskHead
from bertjax.hub.tensors import read_tensors
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import params_template
from bertjax.objectives.classification import classification_objective
from bertjax.objectives.sequence_logits import sequence_logits

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
torch = pytest.importorskip("torch", reason="torch is not installed; make test-interop installs it")
transformers = pytest.importorskip("transformers", reason="it is not installed; make test-interop installs it")
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

LENGTHS, LABELS, WEIGHTS = [9, 3, 5, 12, 2, 7], [0, 2, 1, 1, 0, 2], [0.5, 1.0, 2.5]
OF_HEAD = {"kernel": "weight", "bias": "bias"}


def test_logits_loss_and_gradients_are_theirs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 40, "max_position_embeddings": 16, "num_labels": 3, "initializer_range": 0.2}
    theirs = transformers.BertForSequenceClassification(
        transformers.BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    )
    theirs.save_pretrained(tmp_path)
    config = read_model_config(tmp_path)
    table = LAYOUT.names(config) | {f"classifier/{ours}": f"classifier.{name}" for ours, name in OF_HEAD.items()}
    model = SequenceClassifier(Bert(config), 3)
    ours = filled(params_template(model), table, read_tensors(tmp_path))

    rng = np.random.default_rng(0)
    texts = [rng.integers(5, 50, length).astype(np.int32) for length in LENGTHS]
    starts_n, len_a_n = np.concatenate(([0], np.cumsum(LENGTHS))), np.array(LENGTHS) // 2 + 1
    examples = Examples("made", "", np.concatenate(texts), starts_n, len_a_n, np.array(LABELS, np.int32))
    batch = LabelledBatches(examples, batch_size=6, seed=0).batch_at(0)
    assert len(batch.tokens_bt) < 6

    padded, mask, segments = (torch.zeros(6, 12, dtype=torch.long) for _ in range(3))
    for number, text in enumerate(texts):
        padded[number, : len(text)] = torch.from_numpy(text)
        mask[number, : len(text)] = 1
        segments[number, len_a_n[number] : len(text)] = 1
    logits = theirs.train()(padded, attention_mask=mask, token_type_ids=segments).logits
    loss = torch.nn.CrossEntropyLoss(torch.tensor(WEIGHTS), label_smoothing=0.1)(logits, torch.tensor(LABELS))
    loss.backward()

    there = batch.weights_bk > 0
    rows, slots = np.nonzero(there)
    first_tokens = batch.tokens_bt[rows, batch.cls_positions_bk[rows, slots]]
    order = [next(n for n, text in enumerate(texts) if text[0] == token) for token in first_tokens]
    found = np.asarray(sequence_logits(model, ours, batch))[there]
    np.testing.assert_allclose(found, logits.detach().numpy()[order], rtol=0, atol=1e-5)
    objective = classification_objective(model, label_smoothing=0.1, class_weights=WEIGHTS)

    def loss_of(params: dict[str, Any]) -> jax.Array:
        total, weight = objective.metrics(params, batch, jax.random.key(0))["label_loss"]
        return total / weight

    value, gradients = jax.value_and_grad(loss_of)(ours)
    assert float(value) == pytest.approx(loss.item(), abs=1e-6)
    of_theirs = {name: tensor.grad.numpy() for name, tensor in theirs.named_parameters()}
    for path, gradient in leaves(gradients):
        expected = of_theirs[table[path]]
        expected = expected.T if path.endswith("kernel") else expected
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("kind", ["classify", "several", "score", "rerank"])
def test_an_exported_folder_tells_the_same(tmp_path: Path, kind: str) -> None:
    """By the classes, the pipeline and the cross-encoder that its card names."""
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    targets: Targets = Scores() if kind in ("score", "rerank") else Labels(("no", "yes", "so so"), kind == "several")
    head = TaskHead("classify" if kind == "several" else kind, targets)  # type: ignore[arg-type]
    tokenizer = Tokenizer.train(["one two three four five six"], min_frequency=1)
    ours = SequenceClassifier(
        Bert(BertConfig(tokenizer.vocab_size, 24, 2, 3, 40, 16, init_scale=0.4)), targets.num_outputs
    )
    params = jax.device_get(drawn_params(ours))
    folder = tmp_path / "folder"
    write_folder(ours.bert.config, params, tokenizer, folder, card="", head=head, max_length=12)
    pairs = [("one two three", "four"), ("six", "five five one"), ("one " * 30, "two")]
    if isinstance(targets, Scores):
        told_n = Matcher.load(folder).predict(pairs[:2])
        np.testing.assert_allclose(CrossEncoder(str(folder)).predict(pairs[:2]), told_n, rtol=0, atol=1e-5)
        return
    with pytest.warns(UserWarning, match="shortened to 12"):
        told_nc = Classifier.load(folder).probabilities(pairs)
    model, theirs = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    fed = theirs(*map(list, zip(*pairs, strict=True)), padding=True, truncation=True, return_tensors="pt")
    logits_nc = model(**fed).logits
    expected_nc = logits_nc.sigmoid() if kind == "several" else logits_nc.softmax(-1)
    np.testing.assert_allclose(told_nc, expected_nc.detach().numpy(), rtol=0, atol=1e-5)
    found = pipeline("text-classification", str(folder), top_k=None)({"text": pairs[0][0], "text_pair": pairs[0][1]})
    assert {one["label"]: one["score"] for one in found} == pytest.approx(
        dict(zip(targets.names, told_nc[0].tolist(), strict=True)), abs=1e-5
    )
