"""Tagging against transformers' BertForTokenClassification and BertTokenizer: pieces, logits, loss, gradients."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from drawn_params import drawn_params
from tagged_sentences import tagged_examples
from torch_weights import filled

from bertjax import Tagger
from bertjax.config import BertConfig
from bertjax.data.batching.tagged import TaggedBatches
from bertjax.data.tagged import NO_TAG, read_words
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.bert import LAYOUT
from bertjax.hub.folder import leaves, read_model_config, write_folder
from bertjax.hub.task_head import TaskHead
from bertjax.hub.tensors import read_tensors
from bertjax.models.bert import Bert
from bertjax.models.parameters import params_template
from bertjax.models.tagger import TokenClassifier
from bertjax.objectives.tagging import tagging_objective, token_logits

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
torch = pytest.importorskip("torch", reason="torch is not installed; make test-interop installs it")
transformers = pytest.importorskip("transformers", reason="it is not installed; make test-interop installs it")
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

LENGTHS, WEIGHTS = [9, 3, 5, 12, 4, 7], [0.5, 1.0, 2.5]
OF_HEAD = {"kernel": "weight", "bias": "bias"}


def test_logits_loss_and_gradients_are_theirs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 40, "max_position_embeddings": 16, "num_labels": 3, "initializer_range": 0.2}
    theirs = transformers.BertForTokenClassification(
        transformers.BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    )
    theirs.save_pretrained(tmp_path)
    config = read_model_config(tmp_path)
    table = LAYOUT.names(config) | {f"classifier/{ours}": f"classifier.{name}" for ours, name in OF_HEAD.items()}
    model = TokenClassifier(Bert(config), 3)
    ours = filled(params_template(model), table, read_tensors(tmp_path))

    examples = tagged_examples(LENGTHS, vocab_size=50)
    batches = TaggedBatches(examples, batch_size=6, seed=0)
    batch, tokens_bt = batches.batch_at(0), batches.tokens_at(0)
    assert len(batch.tokens_bt) < 6
    padded, mask = torch.zeros(6, 12, dtype=torch.long), torch.zeros(6, 12, dtype=torch.long)
    labels = torch.full((6, 12), -100)
    for number, length in enumerate(LENGTHS):
        of_text = slice(examples.starts_n[number], examples.starts_n[number + 1])
        padded[number, :length], mask[number, :length] = torch.from_numpy(examples.ids[of_text]), 1
        labels_m = examples.labels_m[of_text]
        labels[number, :length] = torch.from_numpy(np.where(labels_m == NO_TAG, -100, labels_m))
    logits = theirs.train()(padded, attention_mask=mask).logits
    loss = torch.nn.CrossEntropyLoss(torch.tensor(WEIGHTS), label_smoothing=0.1)(logits.flatten(0, 1), labels.flatten())
    loss.backward()

    there = tokens_bt >= 0
    expected = logits.detach().numpy()[mask.numpy() > 0][tokens_bt[there]]
    np.testing.assert_allclose(np.asarray(token_logits(model, ours, batch))[there], expected, rtol=0, atol=1e-5)
    objective = tagging_objective(model, label_smoothing=0.1, class_weights=WEIGHTS)

    def loss_of(params: dict[str, Any]) -> jax.Array:
        total, weight = objective.metrics(params, batch, jax.random.key(0))["tag_loss"]
        return total / weight

    value, gradients = jax.value_and_grad(loss_of)(ours)
    assert float(value) == pytest.approx(loss.item(), abs=1e-6)
    of_theirs = {name: tensor.grad.numpy() for name, tensor in theirs.named_parameters()}
    for path, gradient in leaves(gradients):
        expected = of_theirs[table[path]]
        expected = expected.T if path.endswith("kernel") else expected
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("lowercase", [True, False])
def test_pieces_of_words_are_those_of_berts_tokenizer(tmp_path: Path, lowercase: bool) -> None:
    """As with `is_split_into_words=True`, whatever is in a word, and cut at the same place."""
    rules = Rules("wordpiece", special=BERTS_SPECIAL_TOKENS, lowercase=lowercase, strip_accents=lowercase)
    made = Tokenizer.train(["the United States u s of é a 我 是 paris hello"] * 3, min_frequency=1, rules=rules)
    (tmp_path / "vocab.txt").write_text(made.to_vocab_txt(), encoding="utf-8")
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=lowercase)
    words = [
        "The",
        "U.S.",
        "of",
        "A",
        "",
        "\u200b",
        "[SEP]",
        "united  States",
        "我是",
        "zz",
        "Hé\u0301llo",
        "\U0001f600!",
    ]
    words += ["x" * 101, "-", "''", "a\u00a0b", "[MASK]s", "##s", "<cls>"]
    for max_length in (100, 17, 8, 3):
        encoded = theirs(words, is_split_into_words=True, truncation=True, max_length=max_length)
        (read,) = read_words([words], made, max_length)
        assert read.ids == encoded["input_ids"]
        assert read.words == [-1 if word is None else word for word in encoded.word_ids()]


def test_an_exported_folder_tells_the_same(tmp_path: Path) -> None:
    """By the class and the pipeline that its card names, tags by name."""
    tags = ("B-x", "I-x", "O")
    tokenizer = Tokenizer.train(
        ["anna sees rome often , oslo"] * 3,
        min_frequency=1,
        vocab_size=60,
        rules=Rules("wordpiece", special=BERTS_SPECIAL_TOKENS),
    )
    ours = TokenClassifier(Bert(BertConfig(tokenizer.vocab_size, 24, 2, 3, 40, 32, init_scale=0.6)), len(tags))
    params = jax.device_get(drawn_params(ours, seed=1))  # tags that differ
    folder = tmp_path / "folder"
    write_folder(
        ours.bert.config, params, tokenizer, folder, card="", head=TaskHead("tag", Labels(tags)), max_length=24
    )
    theirs, loading = transformers.AutoModelForTokenClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()) and theirs.config.id2label == dict(enumerate(tags))

    text = "Anna sees Rome often, Oslo annas"
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    ids = encoded["input_ids"].numpy().astype(np.int32)
    zeros, positions, ones = np.zeros_like(ids), np.arange(ids.size, dtype=np.int32)[None], np.ones_like(ids)
    found = ours.apply({"params": params}, ids, zeros, positions, ones)
    with torch.no_grad():
        expected = theirs.eval()(**encoded).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    tagger = Tagger.load(folder)
    (tagged,) = tagger.predict([text])
    told = transformers.pipeline("token-classification", model=str(folder), ignore_labels=[])(text)
    first = {one["start"]: one for one in told if not one["word"].startswith("##")}
    assert [start for start, _ in tagged.spans] == list(first) and tagger.max_length == 24
    assert tagged.tags == [one["entity"] for one in first.values()] and len(set(tagged.tags)) > 1
    assert tagged.probabilities == pytest.approx([float(one["score"]) for one in first.values()], abs=1e-5)
