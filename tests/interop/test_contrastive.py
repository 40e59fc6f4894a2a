"""Embeddings against sentence-transformers: losses with every gradient, packed here, and what a run exports.

`make test-interop` installs it.
"""

import csv
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from labelled_texts import WORDS, write_model

from bertjax import Encoder, finetune, load_config
from bertjax.data.batching.tuples import TupleBatches
from bertjax.data.tuples import Tuples
from bertjax.hub.bert import LAYOUT
from bertjax.hub.export import export_run
from bertjax.hub.folder import leaves, read_folder
from bertjax.models.bert import Bert
from bertjax.models.sentence_encoder import SentenceEncoder
from bertjax.objectives.contrastive import Contrast, contrastive_objective
from bertjax.runs.folder import RunFolder

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
torch = pytest.importorskip("torch", reason="torch is not installed; make test-interop installs it")
st = pytest.importorskip("sentence_transformers", reason="it is not installed; make test-interop installs it")
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

N, R = 5, 3
BOTH_WAYS = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
SCORES = [0.1, 0.9, 0.4, 0.9, -0.5]


def losses() -> Any:
    return st.sentence_transformer.losses


CASES = {
    "pairs": (2, Contrast(symmetric=True), lambda model: losses().MultipleNegativesRankingLoss(model, **BOTH_WAYS)),
    "negatives": (3, Contrast(temperature=0.2), lambda model: losses().MultipleNegativesRankingLoss(model, scale=5.0)),
    "cosent": (2, Contrast(scored=True), lambda model: losses().CoSENTLoss(model)),
    "sizes": (
        3,
        Contrast(sizes=(16, 5)),
        lambda model: losses().MatryoshkaLoss(model, losses().MultipleNegativesRankingLoss(model), [16, 5]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_loss_and_every_gradient_are_theirs(tmp_path: Path, name: str) -> None:
    columns, contrast, make = CASES[name]
    folder = write_model(tmp_path / "model")
    config, params, _ = read_folder(folder)
    params.pop("pooler", None)
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 13, N * columns)
    ids = rng.integers(5, config.vocab_size, lengths.sum()).astype(np.int32)
    texts_nr = np.arange(N * columns).reshape(N, columns)
    made = Tuples("made", "", ids, np.concatenate(([0], np.cumsum(lengths))), texts_nr, np.array(SCORES, np.float32))
    batches = TupleBatches(made, batch_size=N, seed=0)

    theirs = st.SentenceTransformer(str(folder), device="cpu").eval()
    tokens, mask = (torch.zeros(N * columns, 12, dtype=torch.long) for _ in range(2))
    for number, (start, length) in enumerate(zip(made.starts_m, lengths, strict=False)):
        tokens[number, :length] = torch.from_numpy(ids[start : start + length])
        mask[number, :length] = 1
    features = [
        {"input_ids": tokens[column::columns], "attention_mask": mask[column::columns]} for column in range(columns)
    ]
    loss = make(theirs)(features, torch.tensor(SCORES))
    loss.backward()

    model = SentenceEncoder(Bert(config.__class__(**{**vars(config), "dropout": 0.0})))
    objective = contrastive_objective(model, contrast, parts=2)

    def loss_of(params: dict[str, Any]) -> jax.Array:
        total, weight = objective.metrics(params, batches.batch_at(0), jax.random.key(0))["contrastive_loss"]
        return total / weight

    value, gradients = jax.jit(jax.value_and_grad(loss_of))(params)
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    of_theirs = {name: tensor.grad for name, tensor in theirs[0].named_parameters()}
    table, compared = LAYOUT.names(config), 0
    for path, gradient in leaves(gradients):
        (expected,) = [grad for key, grad in of_theirs.items() if key.endswith(table[path].removeprefix("bert."))]
        expected = expected.numpy().T if path.endswith("kernel") else expected.numpy()
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5, err_msg=path)
        compared += 1
    assert compared > 15


def test_an_exported_run_makes_the_same_vectors(tmp_path: Path) -> None:
    rows = [[f"word{n} word{n + 1}", f"word{n + 1} redish word{n}"] for n in range(10)]
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([["text", "pair"], *rows])
    typed = {"init_from": write_model(tmp_path / "model"), "task.train": tmp_path / "a.csv", "task.pooling": "cls"}
    typed |= {"run_dir": tmp_path / "run", "data.max_length": 16, "train.epochs": 2, "train.batch_size": 4}
    typed |= {"task.eval_share": 0.2, "task.eval": tmp_path / "a.csv"}
    run = finetune(load_config("embed", [f"{key}={value}" for key, value in typed.items()]))
    export_run(RunFolder(run), tmp_path / "out")
    theirs = st.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    texts = [" ".join(WORDS[:3]), "redish", ""]
    np.testing.assert_allclose(Encoder.load(run).encode(texts), theirs.encode(texts), atol=1e-5)
