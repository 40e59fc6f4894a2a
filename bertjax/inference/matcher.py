"""The matcher: a text or a pair in, a number out; and passages in the order in which they answer a query."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from bertjax.config import MeshConfig
from bertjax.data.reader import Item
from bertjax.data.targets import Scores
from bertjax.errors import BertjaxError
from bertjax.inference.inputs import Text, as_items
from bertjax.inference.programs import Precision
from bertjax.inference.sequence_head import SequenceHead, load_task_model


class Ranked(NamedTuple):
    """A passage's place in the list that was given, from 0, and how well it answers."""

    number: int
    score: float


class Matcher:
    """Tells numbers of texts and pairs, with dropout off, over all devices of the process; `Matcher.load` makes one.

    Args:
      head: the model with its head for one number.
      scores: how the numbers that were learned lie.
      from_0_to_1: a number is how well a passage answers a query.
    """

    def __init__(self, head: SequenceHead, scores: Scores, *, from_0_to_1: bool):
        self.head, self._scores, self.from_0_to_1 = head, scores, from_0_to_1

    @classmethod
    def load(cls, folder: str | Path, *, precision: Precision = "float32", mesh: MeshConfig | None = None) -> "Matcher":
        """Loads a run of `bertjax finetune --config score`, or `rerank`, or a Hugging Face folder of such a model.

        Args:
          folder, precision, mesh: as for `Classifier.load`.

        Raises:
          BertjaxError: it is no such model, has no checkpoint, or the mesh does not suit the devices or the model.
        """
        kind, targets, head, _ = load_task_model(folder, ("score", "rerank"), precision=precision, mesh=mesh)
        assert isinstance(targets, Scores)
        return cls(head, targets, from_0_to_1=kind == "rerank")

    def predict(self, texts: Text | Iterable[Text], pairs: str | Iterable[str] | None = None) -> np.ndarray:
        """Returns the number of each text or pair of texts, float64 [texts], in the order given.

        Args:
          texts, pairs: as for `Encoder.encode`. What is longer than in training is shortened likewise, with a warning.

        Raises:
          BertjaxError: something is not a text, or pairs and texts do not match.
        """
        return self.numbers_of(as_items(texts, pairs))

    def rank(self, query: str, passages: Sequence[str]) -> list[Ranked]:
        """Returns the passages in order, the one that answers best first.

        Raises:
          BertjaxError: something is not a text, or there is no passage.
        """
        if isinstance(passages, str) or not len(passages):
            raise BertjaxError(f"passages={passages!r} is no list of texts; give one or more")
        numbers_n = self.numbers_of(as_items([query] * len(passages), passages))
        return [Ranked(int(at), float(numbers_n[at])) for at in np.argsort(-numbers_n, kind="stable")]

    def numbers_of(self, items: list[Item]) -> np.ndarray:
        """Returns what `predict` does, of texts and pairs that are checked already."""
        return self.numbers_from(self.head.logits(items))

    def numbers_from(self, logits_nc: np.ndarray) -> np.ndarray:
        """Returns the numbers that the head's logits [n, 1] mean."""
        logits_n = logits_nc[:, 0]
        return np.asarray(expit(logits_n.astype(float))) if self.from_0_to_1 else self._scores.scores(logits_n)
