"""Heads of fine-tuned models in Hugging Face's format: what config.json says of them, both ways.

`transformers` calls such models `...ForSequenceClassification`, and a number a text is one label's logit there; by
`sentence_transformers` it is read as a `CrossEncoder`, whose numbers go through a function that config.json names. How
answers are looked for, which `transformers` is told in calls, is under a name of our own, question_answering.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from bertjax.data.questions import Spans
from bertjax.data.targets import Labels, Scores, Targets
from bertjax.errors import BertjaxError
from bertjax.hub.family import Head

Kind = Literal["classify", "score", "rerank", "tag", "answer"]
PARTS = ("pooler", "classifier")  # of our parameters
_AS_IT_IS, _SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"
_ARCHITECTURES: dict[Head, str] = {
    "labels of texts": "ForSequenceClassification",
    "labels of tokens": "ForTokenClassification",
    "answers": "ForQuestionAnswering",
}
_PIPELINES = {
    "classify": "text-classification",
    "score": "text-classification",
    "rerank": "text-ranking",
    "tag": "token-classification",
    "answer": "question-answering",
}
_SPANS = {"stride": "doc_stride", "max_answer": "max_answer_len", "threshold": "threshold"}  # the names there


class TaskHead(NamedTuple):
    """What a model tells of a text, or of each token of it."""

    kind: Kind
    targets: Targets | Spans

    @property
    def of(self) -> Head:
        """What it tells."""
        return "labels of tokens" if self.kind == "tag" else "answers" if self.kind == "answer" else "labels of texts"

    @property
    def architecture(self) -> str:
        """The end of its class's name there."""
        return _ARCHITECTURES[self.of]

    @property
    def pipeline(self) -> str:
        """What it is for, as model cards call it."""
        return _PIPELINES[self.kind]


def write_settings(head: TaskHead) -> dict[str, Any]:
    """Returns what config.json says of a head."""
    if isinstance(head.targets, Spans):
        return {"question_answering": {_SPANS[name]: value for name, value in head.targets._asdict().items()}}
    names = head.targets.names if isinstance(head.targets, Labels) else ("LABEL_0",)
    settings: dict[str, Any] = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    if isinstance(head.targets, Labels):
        if head.kind != "tag":
            several = head.targets.several
            settings["problem_type"] = "multi_label_classification" if several else "single_label_classification"
        return settings
    # For one label, the loss of a rank there is chosen by the trainer; this is what is said of a number.
    activation = _SIGMOID if head.kind == "rerank" else _AS_IT_IS
    return settings | {
        "problem_type": "regression" if head.kind == "score" else None,
        "sentence_transformers": {"activation_fn": activation},
    }


def has_head(theirs: Mapping[str, Any]) -> bool:
    """Returns whether a config.json tells of a head for labels, numbers or answers."""
    return _of(theirs) is not None


def _of(theirs: Mapping[str, Any]) -> Head | None:
    architecture = str((theirs.get("architectures") or [""])[0])
    return next((head for head, ending in _ARCHITECTURES.items() if architecture.endswith(ending)), None)


def read_settings(theirs: Mapping[str, Any]) -> TaskHead:
    """Returns the head that a config.json tells of.

    Raises:
      BertjaxError: it tells of none, or of one whose numbers mean something unknown.
    """
    if (of := _of(theirs)) is None:
        raise BertjaxError(f"architectures={theirs.get('architectures')} has no head for labels; give a model that has")
    if of == "answers":
        return TaskHead("answer", _read_spans(theirs.get("question_answering") or {}))
    names = theirs.get("id2label")
    if names is None:
        names = {str(number): f"LABEL_{number}" for number in range(theirs.get("num_labels", 2))}
    if not isinstance(names, dict) or {str(key) for key in names} != {str(number) for number in range(len(names))}:
        raise BertjaxError(f"id2label={names!r} does not number its labels from 0; mend it")
    labels = tuple(str(names.get(str(number), names.get(number))) for number in range(len(names)))
    if of == "labels of tokens":
        return TaskHead("tag", Labels(labels))
    if len(labels) > 1:
        return TaskHead("classify", Labels(labels, theirs.get("problem_type") == "multi_label_classification"))
    # What older CrossEncoders wrote stands under a name of its own.
    of_numbers = theirs.get("sentence_transformers") or {}
    default = _AS_IT_IS if theirs.get("problem_type") == "regression" else _SIGMOID
    activation = of_numbers.get("activation_fn", theirs.get("sbert_ce_default_activation_function")) or default
    kind = str(activation).rpartition(".")[2]
    if kind not in ("Identity", "Sigmoid"):
        raise BertjaxError(f"activation_fn={activation!r} is not supported; only Identity and Sigmoid are")
    return TaskHead("score" if kind == "Identity" else "rerank", Scores())


def _read_spans(theirs: Any) -> Spans:
    own = dict(theirs) if isinstance(theirs, dict) else {"question_answering": theirs}
    spans = Spans(**{ours: own.pop(name) for ours, name in _SPANS.items() if name in own})
    numbers = [value for value in (spans.stride, spans.max_answer) if type(value) is int and 0 < value < 1 << 31]
    if own or len(numbers) < 2 or not (spans.threshold is None or type(spans.threshold) in (int, float)):
        raise BertjaxError(f"question_answering={theirs!r} does not say how answers are looked for; leave it out")
    return spans


def plain_head(
    targets: Targets | Spans, classifier: Mapping[str, Any]
) -> tuple[Targets | Spans, dict[str, np.ndarray]]:
    """Returns targets and a last layer that tells numbers themselves, where it told how they lie.

    Args:
      targets: what the model learned.
      classifier: the layer's kernel [d, c] and bias [c].
    """
    arrays = {name: np.asarray(array) for name, array in classifier.items()}
    if isinstance(targets, Labels | Spans) or targets == Scores():
        return targets, arrays
    scaled = {name: array * np.float32(targets.deviation) for name, array in arrays.items()}
    scaled["bias"] = scaled.get("bias", np.zeros(1, np.float32)) + np.float32(targets.mean)
    return Scores(), scaled
