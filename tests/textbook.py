"""The textbook's model, its figures computed elsewhere (tests/reference)."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from bertjax.config import BertConfig
from bertjax.data.batching.batch import Batch
from bertjax.models.bert import Bert
from bertjax.objectives.pretraining import batch_metrics

REFERENCE = Path(__file__).parent / "reference"


def nested(arrays: dict[str, np.ndarray], prefix: str) -> dict:
    """`{"param/mlm/norm/bias": x}` as `{"mlm": {"norm": {"bias": x}}}`."""
    tree: dict = {}
    for name in arrays:
        if name.startswith(f"{prefix}/"):
            *path, leaf = name.removeprefix(f"{prefix}/").split("/")
            node = tree
            for step in path:
                node = node.setdefault(step, {})
            node[leaf] = arrays[name]
    return tree


class Reference:
    """The textbook's PyTorch model, computed in float64 by code that is not ours."""

    def __init__(self) -> None:
        with np.load(REFERENCE / "d2l_bert.npz") as arrays:
            self.arrays = dict(arrays)
        settings = json.loads((REFERENCE / "d2l_bert.json").read_text())
        known = {field.name for field in dataclasses.fields(BertConfig)}
        sizes = {key: value for key, value in settings.items() if key in known}
        self.model = Bert(dataclasses.replace(BertConfig.textbook(), **sizes))
        self.params = nested(self.arrays, "param")
        batch = nested(self.arrays, "batch")
        place_t = np.arange(batch["tokens"].shape[1])
        self.real_bt = (place_t < batch["valid_lens"][:, None]).astype(np.int32)
        self.tokens = (batch["tokens"], batch["segments"], np.broadcast_to(place_t, self.real_bt.shape))
        self.predictions = (batch["pred_positions"], np.zeros((len(self.real_bt), 1), np.int32))
        self.mlm = (batch["mlm_labels"], batch["mlm_weights"])
        self.nsp = (batch["nsp_labels"][:, None], np.ones((len(self.real_bt), 1), np.float32))

    def logits(self, params: dict) -> tuple[jax.Array, jax.Array]:
        return jax.jit(self.model.apply)({"params": params}, *self.tokens, self.real_bt, *self.predictions)

    def batch(self) -> Batch:
        (positions_bp, cls_positions_bk), (labels_bp, weights_bp) = self.predictions, self.mlm
        return Batch(*self.tokens, self.real_bt, positions_bp, labels_bp, weights_bp, cls_positions_bk, *self.nsp)

    def loss(self, params: dict) -> tuple[jax.Array, dict[str, jax.Array]]:
        metrics = batch_metrics(self.model, params, self.batch())
        means = {name: mean.total / mean.weight for name, mean in metrics.items()}
        return means["mlm_loss"] + means["nsp_loss"], means


def relative_error(ours: jax.Array, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs))
