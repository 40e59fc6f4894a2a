"""Writes contrastive.json: losses of sentence-transformers on given vectors, and their gradients.

python tests/reference/make_contrastive.py    # with sentence-transformers; not part of the suite
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from sentence_transformers.sentence_transformer import losses

FILE = Path(__file__).parent / "contrastive.json"
N, R, E = 6, 4, 8
BOTH_WAYS = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}


class Given(torch.nn.Module):
    """Stands for a model, whose vectors are given."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"sentence_embedding": features["vectors"]}

    def get_embedding_dimension(self) -> int:
        return E


def told(vectors: torch.Tensor, make: Callable[[Any], Any], scores: torch.Tensor | None = None) -> dict[str, Any]:
    leaf = vectors.clone().requires_grad_()
    value = make(Given())([{"vectors": leaf[:, column]} for column in range(leaf.shape[1])], scores)
    value.backward()
    return {"loss": value.item(), "gradient": leaf.grad.tolist()}


def ranking(**settings: Any) -> Callable[[Any], Any]:
    return lambda model: losses.MultipleNegativesRankingLoss(model, **settings)


def matryoshka(model: Any) -> Any:
    return losses.MatryoshkaLoss(model, ranking()(model), [8, 5, 2])


def main() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    vectors, scores = torch.randn(N, R, E).float().double(), torch.tensor([0.1, 0.9, 0.4, 0.9, -0.5, 0.3])
    cases = {
        "pairs": told(vectors[:, :2], ranking()),
        "warm": told(vectors[:, :2], ranking(scale=2.0)),
        "symmetric": told(vectors[:, :2], ranking(**BOTH_WAYS)),
        "negatives": told(vectors, ranking()),
        "matryoshka": told(vectors, matryoshka),
        "cosent": told(vectors[:, :2], losses.CoSENTLoss, scores),
        "cosent warm": told(vectors[:, :2], lambda model: losses.CoSENTLoss(model, scale=2.0), scores),
    }
    FILE.write_text(json.dumps({"vectors": vectors.tolist(), "scores": scores.tolist(), "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
