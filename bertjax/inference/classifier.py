"""The classifier: text in, the likeliest of a run's labels out."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import BertConfig, MeshConfig
from bertjax.config.checks import as_type
from bertjax.data.reader import Item, Reader
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.inference.engine import Engine, Precision, Recipe, local_mesh
from bertjax.inference.inputs import Text, as_items
from bertjax.models.sentence import Dense
from bertjax.parallel.sharding import make_mesh


class Prediction(NamedTuple):
    """A label and how likely the model takes it to be."""

    label: str
    probability: float


class Classifier:
    """Tells labels of texts, with dropout off, over all devices of the process. Make one with `Classifier.load`.

    Args:
      config: the model's settings.
      params: its parameters, nested, float32, with the head for labels.
      tokenizer: its vocabulary.
      labels: by their numbers.
      max_length: tokens that are read of a text, special ones included, as in training.
      precision: what matrix products multiply.
      mesh: how texts and parameters are spread over the devices of the process; by default texts alone.
    """

    def __init__(
        self,
        config: BertConfig,
        params: dict[str, Any],
        tokenizer: Tokenizer,
        labels: Sequence[str],
        *,
        max_length: int,
        precision: Precision = "float32",
        mesh: MeshConfig | None = None,
    ):
        self.config, self.tokenizer, self.labels, self.max_length = config, tokenizer, list(labels), max_length
        devices = local_mesh(mesh or MeshConfig(), config)
        shortest = max(1, tokenizer.template.single.num_special)
        encoder = {part: leaves for part, leaves in params.items() if part not in ("pooler", "classifier")}
        self._engine = Engine(config, encoder, precision, devices, shortest=shortest)

        def dense(part: str, activation: str) -> Dense:
            return Dense(params[part]["kernel"], params[part].get("bias"), None, activation, residual=False)

        layers = self._engine.place((dense("pooler", "Tanh"), dense("classifier", "Identity")))
        self._recipe = Recipe(("cls",), layers)

    @classmethod
    def load(
        cls, folder: str | Path, *, precision: Precision = "float32", mesh: MeshConfig | None = None
    ) -> "Classifier":
        """Loads the newest checkpoint of a run that `bertjax finetune` made.

        Args:
          folder: the run's.
          precision: what matrix products multiply, float32 or bfloat16.
          mesh: how texts and parameters are spread over the devices of the process; by default each device has the
            whole model, and texts of its own.

        Raises:
          BertjaxError: it is no such run, has no checkpoint, or the mesh does not suit the devices or the model.
        """
        from bertjax.runs.folder import RunFolder
        from bertjax.runs.parameters import load_params

        precision = as_type(precision, Precision, "precision")
        mesh = as_type(mesh, MeshConfig | None, "mesh")
        run = RunFolder(as_type(folder, Path, "folder"))
        config, labels = run.config(), run.labels()
        sizes = mesh or MeshConfig()
        devices = local_mesh(sizes, config.model)
        params = load_params(run, config, devices if mesh else make_mesh(devices=list(devices.devices.flat)[:1]))
        return cls(
            *(config.model, params, run.tokenizer(), labels),
            max_length=config.data.max_length,
            precision=precision,
            mesh=mesh,
        )

    def predict(self, texts: Text | Iterable[Text], pairs: str | Iterable[str] | None = None) -> list[Prediction]:
        """Returns the likeliest label of each text or pair of texts, in the order given.

        Args:
          texts, pairs: as for `Encoder.encode`. What is longer than in training is shortened likewise, with a warning.

        Raises:
          BertjaxError: something is not a text, or pairs and texts do not match.
        """
        return self._likeliest(self.probabilities(texts, pairs))

    def probabilities(self, texts: Text | Iterable[Text], pairs: str | Iterable[str] | None = None) -> np.ndarray:
        """Returns how likely each label is, float32 [texts, labels], in the order of `labels`.

        Args:
          texts, pairs: as for `predict`.

        Raises:
          BertjaxError: as of `predict`.
        """
        return self._probabilities(as_items(texts, pairs))

    def predict_items(self, items: list[Item]) -> list[Prediction]:
        """Returns what `predict` does, of texts and pairs that are checked already."""
        return self._likeliest(self._probabilities(items))

    def _likeliest(self, probabilities_nc: np.ndarray) -> list[Prediction]:
        best_n = probabilities_nc.argmax(-1)
        return [
            Prediction(self.labels[best], float(of_text[best]))
            for best, of_text in zip(best_n.tolist(), probabilities_nc, strict=True)
        ]

    def _probabilities(self, items: list[Item]) -> np.ndarray:
        reader = Reader(self.tokenizer, self.max_length, truncate=True)
        read = reader.read_all(items, lambda number: f"text {number}")
        if reader.num_shortened:
            warnings.warn(
                f"{reader.num_shortened:,} of {len(items):,} texts are shortened to {self.max_length} tokens, as in "
                "training",
                stacklevel=3,
            )
        (logits_nc,) = self._engine.vectors([read], self._recipe)
        assert isinstance(logits_nc, np.ndarray)
        scores_nc = np.exp(logits_nc - logits_nc.max(-1, keepdims=True))
        return scores_nc / scores_nc.sum(-1, keepdims=True)
