"""Heads of fine-tuned models in Hugging Face folders: read as they were written, and what others write."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax import Classifier, Matcher
from bertjax.config import BertConfig
from bertjax.data.questions import Spans
from bertjax.data.targets import Labels, Scores, Targets
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.export import export_folder
from bertjax.hub.folder import read_task_folder, write_folder
from bertjax.hub.task_head import Kind, TaskHead, plain_head, read_settings, write_settings
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier

SPANS: dict[str, Any] = {"architectures": ["BertForQuestionAnswering"]}
HEADS = [
    TaskHead("classify", Labels(("no", "yes", "perhaps"))),
    TaskHead("classify", Labels(("a", "b"), True)),
    TaskHead("score", Scores()),
    TaskHead("rerank", Scores()),
    TaskHead("tag", Labels(("O", "B-X"))),
    TaskHead("answer", Spans()),
    TaskHead("answer", Spans(64, 20, -1.5)),
]


@pytest.mark.parametrize("head", HEADS)
def test_settings_are_read_as_they_were_written(head: TaskHead) -> None:
    written = json.loads(json.dumps(write_settings(head)))
    assert read_settings(written | {"architectures": [f"Bert{head.architecture}"]}) == head


@pytest.mark.parametrize(
    "theirs, kind, targets",
    [
        ({}, "classify", Labels(("LABEL_0", "LABEL_1"))),
        ({"num_labels": 3}, "classify", Labels(("LABEL_0", "LABEL_1", "LABEL_2"))),
        ({"id2label": {"1": "b", "0": "a"}}, "classify", Labels(("a", "b"))),
        ({"id2label": {"0": "x"}}, "rerank", Scores()),  # as CrossEncoder takes it
        ({"id2label": {"0": "x"}, "problem_type": "regression"}, "score", Scores()),
        ({"id2label": {"0": "x"}, "sbert_ce_default_activation_function": "torch.nn.Identity"}, "score", Scores()),
    ],
)
def test_what_others_leave_out(theirs: dict[str, Any], kind: Kind, targets: Targets) -> None:
    assert read_settings(theirs | {"architectures": ["BertForSequenceClassification"]}) == TaskHead(kind, targets)


@pytest.mark.parametrize(
    "theirs, reason",
    [
        ({"architectures": ["BertModel"]}, "has no head for labels"),
        ({"architectures": None}, "has no head for labels"),
        ({"id2label": {"1": "a", "2": "b"}}, "does not number its labels from 0"),
        ({"id2label": ["a"]}, "does not number its labels from 0"),
        (SPANS | {"question_answering": {"doc_stride": 0}}, "does not say how answers are looked for; leave it out"),
        (SPANS | {"question_answering": {"threshold": "1"}}, "question_answering={'threshold': '1'} does not say how"),
        (SPANS | {"question_answering": {"other": 1}}, "does not say how answers are looked for"),
        (SPANS | {"question_answering": [1]}, "does not say how answers are looked for"),
        ({"id2label": {"0": "x"}, "sentence_transformers": {"activation_fn": "my.Code"}}, "only Identity and Sigmoid"),
    ],
)
def test_what_cannot_be_read_is_refused(theirs: dict[str, Any], reason: str) -> None:
    with pytest.raises(BertjaxError, match=reason):
        read_settings({"architectures": ["BertForSequenceClassification"]} | theirs)


def test_numbers_are_told_themselves() -> None:
    rng = np.random.default_rng(0)
    x_nd, kernel_d1 = rng.normal(size=(5, 4)), rng.normal(size=(4, 1)).astype(np.float32)
    for bias in ({}, {"bias": np.array([0.5], np.float32)}):
        scores = Scores(100.0, 20.0)
        plain, layer = plain_head(scores, {"kernel": kernel_d1, **bias})
        assert plain == Scores()
        told_n1 = x_nd @ kernel_d1 + bias.get("bias", 0)
        np.testing.assert_allclose(x_nd @ layer["kernel"] + layer["bias"], scores.scores(told_n1), rtol=1e-5)
    labels = Labels(("a", "b"))
    assert plain_head(labels, {"kernel": kernel_d1})[0] is labels


def folder_of(head: TaskHead, folder: Path) -> Path:
    tokenizer = Tokenizer.train(["one two three four"], min_frequency=1)
    model = SequenceClassifier(Bert(BertConfig(tokenizer.vocab_size, 16, 1, 2, 32, 16)), head.targets.num_outputs)
    params = jax.device_get(drawn_params(model))
    write_folder(model.bert.config, params, tokenizer, folder, card="of mine", head=head, max_length=12)
    return folder


def test_a_folder_tells_what_it_told_and_goes_on(tmp_path: Path) -> None:
    folder = folder_of(HEADS[0], tmp_path / "a")
    assert not (folder / "modules.json").exists()
    model, head, max_length = read_task_folder(folder)
    assert (head, max_length, set(model.params) >= {"pooler", "classifier"}) == (HEADS[0], 12, True)
    classifier = Classifier.load(folder)
    told_nc = classifier.probabilities(["one two", ("three", "four")])
    assert classifier.labels == ["no", "yes", "perhaps"] and told_nc.shape == (2, 3)
    export_folder(folder, tmp_path / "again")
    np.testing.assert_array_equal(Classifier.load(tmp_path / "again").probabilities(["one two"])[0], told_nc[0])
    assert (tmp_path / "again/README.md").read_text() == "of mine"
    with pytest.raises(BertjaxError, match="a has a head for task.kind=classify; give one of score or rerank"):
        Matcher.load(folder)
    numbers_n = Matcher.load(folder_of(HEADS[3], tmp_path / "b")).predict([("one", "two")])
    assert 0 < numbers_n[0] < 1


def test_half_a_head_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = folder_of(HEADS[0], tmp_path / "a")
    tensors = load_file(folder / "model.safetensors")
    for broken, reason in (
        ({name: array for name, array in tensors.items() if name != "classifier.bias"}, "no whole head"),
        (tensors | {"classifier.weight": np.zeros((2, 16), np.float32)}, r"classifier.weight is \[2, 16\]"),
    ):
        save_file(broken, folder / "model.safetensors")
        with pytest.raises(BertjaxError, match=reason):
            Classifier.load(folder)
