"""Exports as ONNX beside the real `transformers`, and by the loader of `sentence-transformers`.

That loader, optimum-onnx 0.1, wants transformers 4, so another Python tries it: BERTJAX_OPTIMUM names one
for which `pip install 'sentence-transformers[onnx]'` has run.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from family_models import difference
from whole_tokenizers import ROLES, bpe, write

from bertjax.config import BertConfig
from bertjax.data.questions import Spans
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.folder import FAMILIES, write_folder
from bertjax.hub.task_head import TaskHead
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import params_template
from bertjax.models.tagger import TokenClassifier

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
torch = pytest.importorskip("torch", reason="torch is not installed; make test-interop installs it")
transformers = pytest.importorskip("transformers", reason="it is not installed; make test-interop installs it")
onnxruntime = pytest.importorskip("onnxruntime", reason="it is not installed; make test-interop installs it")
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

OPTIMUM = os.environ.get("BERTJAX_OPTIMUM")
TEXTS = ["a crane is flying over it", "he just left", "cranes"]
MODERN: dict[str, Any] = {"norm": "pre", "first_attention_norm": False, "positions": "rotary", "biases": False}
MODERN |= {"token_types": 0, "hidden_act": "geglu", "window": 4, "global_every": 2, "local_rotary_theta": 100.0}
MODERN |= {"pooler_act": "hidden_act", "pooler_norm": True, "classifier_bias": True, "classifier_pooling": "mean"}
MODELS: dict[str, dict[str, Any]] = {
    "BERT": {"hidden_act": "gelu_tanh"},
    "RoFormer": {"positions": "rotary", "pooler_act": "hidden_act"},
    "ModernBERT": MODERN,
    "DistilBERT": {"token_types": 0, "pooler_act": "relu"},
    "ELECTRA": {"embedding_size": 8, "pooler_act": "hidden_act"},
    "ALBERT": {"embedding_size": 8, "share_layers": True},
    "RoBERTa": {"token_types": 1},
    "XLM-RoBERTa": {"token_types": 1},
    "CamemBERT": {"token_types": 1},
    "Nomic BERT": {"positions": "rotary", "rotary_theta": 500.0, "hidden_act": "swiglu", "block_biases": False},
    "Jina embeddings v3": {"positions": "rotary", "token_types": 1},
    "DeBERTa v2": {"positions": "disentangled", "token_types": 0, "pooler_act": "hidden_act"},
    "MPNet": {"token_types": 0, "relative_attention_bias": True},
}
HEADS = {
    "vectors": (None, "AutoModel"),
    "labels of texts": (TaskHead("classify", Labels(("a", "b", "c"))), "AutoModelForSequenceClassification"),
    "labels of tokens": (TaskHead("tag", Labels(("O", "B-X"))), "AutoModelForTokenClassification"),
    "answers": (TaskHead("answer", Spans()), "AutoModelForQuestionAnswering"),
}
LACKING = {"ModernBERT": ("labels of tokens", "answers"), "Nomic BERT": ("answers",)}  # heads that are not written
CASES = [(name, head) for name in MODELS for head in HEADS if head not in LACKING.get(name, ())]


def exported(folder: Path, name: str, of_head: str) -> Path:
    """A random model of a family as we export it, with weights of both widths."""
    rules = Rules("wordpiece", special=BERTS_SPECIAL_TOKENS)
    made = Tokenizer.train(TEXTS, min_frequency=1, rules=rules, vocab_size=60)
    (family,) = (family for family in FAMILIES if family.name == name)
    if family.pad is not None:
        made = load_tokenizer(write(folder / "bpe", bpe(), tokenizer_class="RobertaTokenizer", **ROLES))
    config, (head, _) = BertConfig(made.vocab_size, 16, 2, 2, 24, 40, **MODELS[name]), HEADS[of_head]
    model: Any = Bert(config)
    if head is not None:
        labels = 2 if isinstance(head.targets, Spans) else head.targets.num_outputs
        model = (SequenceClassifier if head.of == "labels of texts" else TokenClassifier)(model, labels)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), params_template(model))
    write_folder(config, params, made, folder / "out", card="", families=(family,), head=head, onnx="int8")
    return folder / "out"


@pytest.mark.parametrize("name, of_head", CASES)
def test_it_says_what_transformers_says(
    name: str, of_head: str, tmp_path: Path, tell: Callable[[str, str, float], None]
) -> None:
    """Of a row that is full and of rows with padding, at their ends or at their starts."""
    folder = exported(tmp_path, name, of_head)
    runs = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    theirs = getattr(transformers, HEADS[of_head][1]).from_pretrained(folder).eval()
    rng, mask_bt = np.random.default_rng(1), np.ones((3, 13), np.int64)
    mask_bt[1, 8:] = mask_bt[2, :6] = 0
    inputs = {"input_ids": np.where(mask_bt, rng.integers(5, 40, (3, 13)), theirs.config.pad_token_id)}
    inputs |= {"attention_mask": mask_bt, "token_type_ids": rng.integers(0, 2, (3, 13))}
    inputs = {of.name: inputs[of.name] for of in runs.get_inputs()}
    if of_head == "labels of texts":  # which are told from the first token
        inputs = {key: array[:2] for key, array in inputs.items()}
    with torch.no_grad():
        told = theirs(**{key: torch.from_numpy(array) for key, array in inputs.items()})
    real_bt = inputs["attention_mask"] > 0
    for of, found in zip(runs.get_outputs(), runs.run(None, inputs), strict=True):
        expected = told[of.name].numpy()
        assert found.shape == expected.shape
        there = real_bt if expected.shape[:2] == real_bt.shape else ...
        tell(name, "ONNX", far := difference(found[there], expected[there]))
        assert far < 1e-5


@pytest.mark.skipif(OPTIMUM is None, reason="BERTJAX_OPTIMUM names no Python with sentence-transformers[onnx]")
@pytest.mark.parametrize("name", MODELS)
def test_sentence_transformers_loads_it(name: str, tmp_path: Path) -> None:
    folder = exported(tmp_path, name, "vectors")
    script = """
import json, sys
from sentence_transformers import SentenceTransformer
texts, files = json.loads(sys.argv[2]), ("onnx/model.onnx", "onnx/model_quantized.onnx")
theirs = [SentenceTransformer(sys.argv[1], device="cpu")]
theirs += [SentenceTransformer(sys.argv[1], backend="onnx", model_kwargs={"file_name": file}) for file in files]
print(json.dumps([one.encode(texts).tolist() for one in theirs]))
"""
    called = [str(OPTIMUM), "-c", script, str(folder), json.dumps(TEXTS)]
    out = subprocess.run(called, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""}).stdout
    torch_bd, onnx_bd, int8_bd = np.array(json.loads(out.splitlines()[-1]))
    np.testing.assert_allclose(onnx_bd, torch_bd, atol=1e-5)
    cosine_b = (int8_bd * torch_bd).sum(1) / np.linalg.norm(int8_bd, axis=1) / np.linalg.norm(torch_bd, axis=1)
    assert cosine_b.min() > 0.98
