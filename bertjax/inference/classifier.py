"""The classifier: text in, the likeliest of a run's labels out."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertjax.config import MeshConfig
from bertjax.config.checks import as_type
from bertjax.data.reader import Item
from bertjax.data.targets import Labels
from bertjax.errors import BertjaxError
from bertjax.inference.inputs import Text, as_items
from bertjax.inference.programs import Precision
from bertjax.inference.sequence_head import SequenceHead, load_task_model


class Prediction(NamedTuple):
    """A label and how likely the model takes it to be."""

    label: str
    probability: float


class Classifier:
    """Tells labels of texts, with dropout off, over all devices of the process. Make one with `Classifier.load`.

    Args:
      head: the model with its head for labels.
      labels: by their numbers, and whether a text may have several.
      temperature: what logits are divided by: the greater, the less sure are probabilities. Which label is the
        likeliest stays the same.
    """

    def __init__(self, head: SequenceHead, labels: Labels, *, temperature: float = 1.0):
        self.head, self._labels, self._temperature = head, labels, temperature

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        precision: Precision = "float32",
        mesh: MeshConfig | None = None,
        calibrated: bool = False,
    ) -> "Classifier":
        """Loads a run of `bertjax finetune --config classify`, or a Hugging Face folder of a model that classifies.

        Args:
          folder: the run's, or the other, or ORG/NAME or ORG/NAME@REVISION on the hub.
          precision: what matrix products multiply, float32 or bfloat16.
          mesh: how texts and parameters are spread over the devices of the process; by default each device has the
            whole model, and texts of its own.
          calibrated: divide logits by the temperature that suits the examples which the run held out (Guo et al. 2017),
            so that of guesses with a probability of 80% about 80 in 100 are right. By default probabilities are the
            model's own, which other tools tell of its exported folder too.

        Raises:
          BertjaxError: it is no such model, has no checkpoint, or the mesh does not suit the devices or the model; or
            calibrated probabilities are asked for and it has no temperature.
        """
        _, targets, head, temperature = load_task_model(folder, ("classify",), precision=precision, mesh=mesh)
        assert isinstance(targets, Labels)
        if not as_type(calibrated, bool, "calibrated"):
            return cls(head, targets)
        if temperature is None:
            raise BertjaxError(
                f"{folder} has no temperature for calibrated probabilities; give a run of task.kind=classify (where "
                "one ended without, --resume adds it), or leave calibrated out"
            )
        return cls(head, targets, temperature=temperature)

    @property
    def labels(self) -> list[str]:
        """The labels, by their numbers."""
        return list(self._labels.names)

    @property
    def several(self) -> bool:
        """Whether a text may have several labels, or none."""
        return self._labels.several

    def predict(self, texts: Text | Iterable[Text], pairs: str | Iterable[str] | None = None) -> list[Prediction]:
        """Returns the likeliest label of each text or pair of texts, in the order given.

        Args:
          texts, pairs: as for `Encoder.encode`. What is longer than in training is shortened likewise, with a warning.

        Raises:
          BertjaxError: something is not a text, or pairs and texts do not match.
        """
        return self._likeliest(self.probabilities_of(as_items(texts, pairs)))

    def predict_several(
        self, texts: Text | Iterable[Text], pairs: str | Iterable[str] | None = None
    ) -> list[list[Prediction]]:
        """Returns the labels of each text or pair that are likelier than not, the likeliest first; it may be none.

        Args:
          texts, pairs: as for `predict`.

        Raises:
          BertjaxError: as of `predict`.
        """
        return [
            [Prediction(self.labels[at], float(of_text[at])) for at in np.argsort(-of_text) if of_text[at] > 0.5]
            for of_text in self.probabilities_of(as_items(texts, pairs))
        ]

    def probabilities(self, texts: Text | Iterable[Text], pairs: str | Iterable[str] | None = None) -> np.ndarray:
        """Returns how likely each label is, float32 [texts, labels], in the order of `labels`.

        Args:
          texts, pairs: as for `predict`.

        Raises:
          BertjaxError: as of `predict`.
        """
        return self.probabilities_of(as_items(texts, pairs))

    def _likeliest(self, probabilities_nc: np.ndarray) -> list[Prediction]:
        best_n = probabilities_nc.argmax(-1)
        return [
            Prediction(self.labels[best], float(of_text[best]))
            for best, of_text in zip(best_n.tolist(), probabilities_nc, strict=True)
        ]

    def probabilities_of(self, items: list[Item]) -> np.ndarray:
        """Returns what `probabilities` does, of texts and pairs that are checked already."""
        return self.probabilities_from(self.head.logits(items))

    def probabilities_from(self, logits_nc: np.ndarray) -> np.ndarray:
        """Returns how likely each label is by the head's logits."""
        logits_nc = logits_nc / np.float32(self._temperature)
        if self.several:
            return 1 / (1 + np.exp(-logits_nc))
        scores_nc = np.exp(logits_nc - logits_nc.max(-1, keepdims=True))
        return scores_nc / scores_nc.sum(-1, keepdims=True)
