"""The answerer: a question and a text in, the part of the text that answers it out."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bertjax.config import BertConfig, MeshConfig
from bertjax.config.checks import as_type
from bertjax.data.questions import Spans
from bertjax.data.reader import TokenIds
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.data.windows import read_windows
from bertjax.errors import BertjaxError, warn
from bertjax.hub.folder import is_hub_folder, read_task_folder
from bertjax.inference.engine import Engine, Recipe, local_mesh
from bertjax.inference.inputs import as_text, elements
from bertjax.inference.programs import Precision
from bertjax.inference.sequence_head import load_run
from bertjax.inference.spans import FoundSpan, find_span
from bertjax.models.sentence import Dense
from bertjax.storage.hub_models import model_folder


class FoundAnswer(NamedTuple):
    """The part of a context that answers a question, or that none does."""

    text: str  # empty where there is no answer
    start: int | None  # in characters of the context
    end: int | None
    probability: float  # of its first token, times that of its last one, in the window of the context that it is from


class Answerer:
    """Finds answers in texts, with dropout off, over all devices of the process. Make one with `Answerer.load`.

    Args:
      config: the model's settings.
      params: its parameters, nested, float32, with the head for answers.
      tokenizer: its vocabulary.
      spans: how answers are looked for.
      max_length: tokens of a window, special ones and the question included, as in training.
      precision: what matrix products multiply.
      mesh: how windows and parameters are spread over the devices of the process; by default windows alone.
    """

    def __init__(
        self,
        config: BertConfig,
        params: dict[str, Any],
        tokenizer: Tokenizer,
        spans: Spans,
        *,
        max_length: int,
        precision: Precision = "float32",
        mesh: MeshConfig | None = None,
    ):
        self.config, self.tokenizer, self.spans, self.max_length = config, tokenizer, spans, max_length
        devices = local_mesh(mesh or MeshConfig(), config)
        encoder = {part: leaves for part, leaves in params.items() if part not in ("pooler", "classifier")}
        shortest = max(1, tokenizer.template.pair.num_special)
        self.engine = Engine(config, encoder, precision, devices, shortest=shortest)
        head = params["classifier"]
        layer = Dense(head["kernel"], head.get("bias"), None, "Identity", residual=False)
        self.recipe = Recipe(("tokens",), self.engine.place((layer,)))

    @classmethod
    def load(
        cls, folder: str | Path, *, precision: Precision = "float32", mesh: MeshConfig | None = None
    ) -> "Answerer":
        """Loads what `bertjax finetune --config answer` trained, or a Hugging Face folder of a model with such a head.

        Args:
          folder, precision, mesh: as for `Classifier.load`.

        Raises:
          BertjaxError: it is no such model, has no checkpoint, or the mesh does not suit the devices or the model.
        """
        mesh = as_type(mesh, MeshConfig | None, "mesh")
        how: Any = {"precision": as_type(precision, Precision, "precision"), "mesh": mesh}
        path = model_folder(as_type(folder, Path, "folder"))
        if is_hub_folder(path):
            model, (kind, targets), max_length = read_task_folder(path)
            if not isinstance(targets, Spans):
                raise BertjaxError(f"{path} has a head for task.kind={kind}; give one of answer")
            return cls(*model, targets, max_length=max_length, **how)
        run, config, params = load_run(path, ("answer",), mesh)
        return cls(config.model, params, run.tokenizer(), run.spans(), max_length=config.data.max_length, **how)

    def answer(self, question: str, context: str) -> FoundAnswer:
        """Returns the answer to a question that a text has; see `predict`."""
        return self.predict([question], [context])[0]

    def predict(self, questions: str | Iterable[str], contexts: str | Iterable[str]) -> list[FoundAnswer]:
        """Returns the answer to each question, in the order given.

        There is none where the model was trained with questions without an answer, and takes this for one; or where the
        context has nothing that can be read.

        Args:
          questions: one, or several.
          contexts: the text in which to look for the answer of each, however long.

        Raises:
          BertjaxError: something is not a text, or there is not one context for each question.
        """
        asked = [as_text(text, f"question {number}") for number, text in enumerate(elements(questions, "questions"))]
        texts = [as_text(text, f"context {number}") for number, text in enumerate(elements(contexts, "contexts"))]
        if len(asked) != len(texts):
            raise BertjaxError(f"{len(asked)} questions and {len(texts)} contexts; give one context for each question")
        return self.answers(list(zip(asked, texts, strict=True)))

    def answers(self, items: list[tuple[str, str]]) -> list[FoundAnswer]:
        """Returns what `predict` does, of questions and contexts that are checked already."""
        read = list(read_windows(items, self.tokenizer, max_length=self.max_length, stride=self.spans.stride))
        if cut := sum(one.is_cut for one in read):
            warn(
                f"{cut:,} of {len(items):,} questions are not read to their end, as they take up half of the "
                f"{self.max_length} tokens that are read",
                stacklevel=3,
            )
        windows = [TokenIds(window.ids.tolist(), window.len_a) for one in read for window in one.windows]
        (of_windows,) = self.engine.vectors([windows], self.recipe)
        logits = iter(of_windows)
        return [
            self._told(context, find_span(one, [next(logits) for _ in one.windows], max_answer=self.spans.max_answer))
            for (_, context), one in zip(items, read, strict=True)
        ]

    def _told(self, context: str, span: FoundSpan) -> FoundAnswer:
        if span.is_none(self.spans.threshold):
            return FoundAnswer("", None, None, span.none_probability)
        return FoundAnswer(context[span.start : span.end], span.start, span.end, span.probability)
