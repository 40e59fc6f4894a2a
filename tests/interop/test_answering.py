"""Answering against transformers' BertForQuestionAnswering and its tokenizer: windows, logits, loss, gradients."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from asked_questions import answer_examples
from drawn_params import drawn_params
from torch_weights import filled

from bertjax import Answerer
from bertjax.config import BertConfig
from bertjax.data.batching.answers import AnswerBatches
from bertjax.data.questions import Spans
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.data.windows import read_windows
from bertjax.hub.bert import LAYOUT
from bertjax.hub.folder import FAMILIES, leaves, read_model_config, write_folder
from bertjax.hub.task_head import TaskHead
from bertjax.hub.tensors import read_tensors
from bertjax.models.bert import Bert
from bertjax.models.parameters import params_template
from bertjax.models.tagger import TokenClassifier
from bertjax.objectives.answering import answering_objective
from bertjax.objectives.tagging import token_logits

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
torch = pytest.importorskip("torch", reason="torch is not installed; make test-interop installs it")
transformers = pytest.importorskip("transformers", reason="it is not installed; make test-interop installs it")
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

LENGTHS = [9, 3, 5, 12, 4, 7]
OF_HEAD = {"kernel": "weight", "bias": "bias"}
RULES = Rules("wordpiece", special=BERTS_SPECIAL_TOKENS)
WORDS = "the crane stands by a river , rome oslo lies in italy it is old"
CONTEXT = "Rome lies in Italy, by a river. It is old; the crane stands in Oslo, by the river, it stands by Rome."


def tokenizer() -> Tokenizer:
    return Tokenizer.train([WORDS] * 3, min_frequency=1, vocab_size=80, rules=RULES)


def test_logits_loss_and_gradients_are_theirs(tmp_path: Path) -> None:
    """Of each sequence by itself there, as the padding of a batch has a part in their loss; here of packed rows."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 40, "max_position_embeddings": 16, "initializer_range": 0.2}
    theirs = transformers.BertForQuestionAnswering(
        transformers.BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    )
    theirs.save_pretrained(tmp_path)
    config = read_model_config(tmp_path)
    table = LAYOUT.names(config) | {f"classifier/{ours}": f"qa_outputs.{name}" for ours, name in OF_HEAD.items()}
    model = TokenClassifier(Bert(config), 2)
    ours = filled(params_template(model), table, read_tensors(tmp_path))

    examples = answer_examples(LENGTHS, vocab_size=50)
    batches = AnswerBatches(examples, batch_size=6, seed=0)
    batch, tokens_bt = batches.batch_at(0), batches.tokens_at(0)
    assert len(batch.tokens_bt) < 6
    logits, total = [], torch.zeros(())
    for number, length in enumerate(LENGTHS):
        of_text = slice(examples.starts_n[number], examples.starts_n[number + 1])
        segments = torch.tensor([[int(place >= examples.len_a_n[number]) for place in range(length)]])
        start, end = (torch.tensor([int(place)]) for place in examples.answers_n2[number])
        told = theirs.train()(
            torch.from_numpy(examples.ids[of_text][None].astype(np.int64)),
            token_type_ids=segments,
            start_positions=start,
            end_positions=end,
        )
        logits.append(torch.stack((told.start_logits[0], told.end_logits[0]), -1).detach().numpy())
        total = total + told.loss / len(LENGTHS)
    total.backward()

    there = tokens_bt >= 0
    found = np.asarray(token_logits(model, ours, batch))[there]
    np.testing.assert_allclose(found, np.concatenate(logits)[tokens_bt[there]], rtol=0, atol=1e-5)
    objective = answering_objective(model)

    def loss_of(params: dict[str, Any]) -> jax.Array:
        total, weight = objective.metrics(params, batch, jax.random.key(0))["answer_loss"]
        return total / weight

    value, gradients = jax.value_and_grad(loss_of)(ours)
    assert float(value) == pytest.approx(total.item(), abs=1e-5)
    of_theirs = {name: tensor.grad.numpy() for name, tensor in theirs.named_parameters()}
    for path, gradient in leaves(gradients):
        expected = of_theirs[table[path]]
        expected = expected.T if path.endswith("kernel") else expected
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5, err_msg=path)


def test_windows_and_places_are_those_of_their_tokenizer(tmp_path: Path) -> None:
    """Whose stride is what two windows share."""
    made = tokenizer()
    (tmp_path / "vocab.txt").write_text(made.to_vocab_txt(), encoding="utf-8")
    theirs = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"))
    question = "where is the Crane?"
    (one,) = read_windows([(question, CONTEXT)], made, max_length=24, stride=5)
    shared = one.windows[0].size - 5
    encoded = theirs(
        question,
        CONTEXT,
        max_length=24,
        truncation="only_second",
        stride=shared,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert [window.ids.tolist() for window in one.windows] == encoded["input_ids"] and len(one.windows) > 2
    for window, segments, offsets in zip(
        one.windows, encoded["token_type_ids"], encoded["offset_mapping"], strict=True
    ):
        assert window.len_a == segments.index(1)
        of_context = [list(span) for span in offsets[window.place : window.place + window.size]]
        assert one.spans_c2[window.first : window.first + window.size].tolist() == of_context


@pytest.mark.parametrize("name", ["BERT", "RoFormer", "DistilBERT", "ELECTRA"])
def test_an_exported_folder_tells_the_same_and_theirs_is_read(name: str, tmp_path: Path) -> None:
    """By AutoModelForQuestionAnswering, whose span is the one that is found; written anew by it, all is as it was."""
    made, spans = tokenizer(), Spans(8, 6, 0.5)
    (family,) = (family for family in FAMILIES if family.name == name)
    how: dict[str, Any] = {"positions": "rotary"} if name == "RoFormer" else {}
    how |= {"token_types": 0} if name == "DistilBERT" else {}
    ours = TokenClassifier(Bert(BertConfig(made.vocab_size, 24, 2, 3, 40, 64, init_scale=0.3, **how)), 2)
    params = jax.device_get(drawn_params(ours))
    folder, head = tmp_path / "folder", TaskHead("answer", spans)
    write_folder(ours.bert.config, params, made, folder, card="", families=(family,), head=head, max_length=48)
    theirs, loading = transformers.AutoModelForQuestionAnswering.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()) and type(theirs).__name__ == f"{family.architecture}ForQuestionAnswering"

    question = "Where is the crane?"
    reader = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = reader(question, CONTEXT, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    ids = encoded["input_ids"].numpy().astype(np.int32)
    segments = encoded["token_type_ids"].numpy().astype(np.int32) if "token_type_ids" in encoded else np.zeros_like(ids)
    positions, ones = np.arange(ids.size, dtype=np.int32)[None], np.ones_like(ids)
    found = np.asarray(ours.apply({"params": params}, ids, segments, positions, ones))
    with torch.no_grad():
        told = theirs.eval()(**encoded)
    expected = np.stack((told.start_logits.numpy(), told.end_logits.numpy()), -1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    first = ids[0].tolist().index(made.vocabulary.sep) + 1
    sums = {
        (start, end): expected[0, start, 0] + expected[0, end, 1]
        for start in range(first, ids.size - 1)
        for end in range(start, min(start + 6, ids.size - 1))
    }
    start, end = max(sums, key=sums.__getitem__)
    answerer = Answerer.load(folder)
    assert (answerer.spans, answerer.max_length) == (spans, 48)
    answer = answerer.answer(question, CONTEXT)
    if expected[0, 0].sum() - sums[start, end] > 0.5:
        assert answer.text == ""
    else:
        assert (answer.start, answer.end) == (offsets[start][0], offsets[end][1])

    theirs.save_pretrained(tmp_path / "again")
    reader.save_pretrained(tmp_path / "again")
    again = Answerer.load(tmp_path / "again")
    assert again.spans == spans and again.answer(question, CONTEXT)[:3] == answer[:3]
