"""Models that are served: each a folder, loaded as what it is, with the programs that its requests need."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import MeshConfig
from bertjax.data.tokenizer.rules import MASK
from bertjax.data.tokenizer.settings import read_json
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.folder import is_hub_folder, read_task_head
from bertjax.hub.task_head import has_head
from bertjax.inference.classifier import Classifier
from bertjax.inference.encoder import Encoder
from bertjax.inference.engine import TOKENS, Engine, Recipe
from bertjax.inference.matcher import Matcher
from bertjax.inference.plan import Plan
from bertjax.inference.pretrained import model_config
from bertjax.inference.programs import Precision
from bertjax.inference.tagger import Tagger
from bertjax.serving.errors import Refused, wrong
from bertjax.serving.programs import Program, VectorProgram, WordProgram, warm_up
from bertjax.serving.rows import Shapes
from bertjax.storage.hub_models import model_folder


class Origin(NamedTuple):
    """Where a served model comes from, and how it is computed."""

    name: str  # as requests call it
    folder: str  # of a run or a Hugging Face model, or a name on the hub
    precision: Precision = "float32"
    mesh: MeshConfig | None = None
    batch_tokens: int | None = None  # of the largest batch, a device


class Served:
    """A model that requests are answered by.

    Args:
      origin: of it.
      engine: that computes it.
      tokenizer: its own.
      max_length: tokens that are read of a text.
    """

    pipeline: str  # what it is for, as the hub calls it

    def __init__(self, origin: Origin, engine: Engine, tokenizer: Tokenizer, max_length: int):
        self.origin, self.engine, self.tokenizer, self.max_length = origin, engine, tokenizer, max_length
        self.shapes = Shapes(engine, max_length, origin.batch_tokens)
        self.created = int(time.time())

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.origin.name

    def programs(self) -> list[Program]:
        """Returns all that its requests need."""
        raise NotImplementedError

    def warm_up(self) -> "Served":
        """Compiles all that its requests need, and returns itself."""
        for program in self.programs():
            warm_up(program, self.shapes)
        return self


class ServedEncoder(Served):
    """A model that makes vectors, and perhaps guesses words."""

    pipeline = "feature-extraction"

    def __init__(self, origin: Origin, encoder: Encoder):
        longest = min(encoder.sentence.max_length or encoder.config.max_position, encoder.config.max_position)
        super().__init__(origin, encoder.engine, encoder.tokenizer, longest)
        self.encoder = encoder
        self._of_texts: dict[tuple[tuple[str, ...], int], VectorProgram] = {}
        for prompt in ("", encoder.sentence.default_prompt, *encoder.sentence.prompts.values()):
            self._vectors(encoder.plan(prompt=prompt).recipe)
        self.token_vectors = VectorProgram(encoder.engine, TOKENS, self.shapes)
        guesses = encoder.engine.has_mlm_head() and encoder.tokenizer.rules.special[MASK] is not None
        self.words = WordProgram(encoder.engine, self.shapes, encoder.tokenizer.vocab_size) if guesses else None

    def programs(self) -> list[Program]:
        """Returns those that compile all that its requests need."""
        # Vectors of tokens are what the model gives: the others compile that on their way.
        return [*self._of_texts.values(), *([self.words] if self.words else [])]

    def vectors(self, truncate: bool, prompt_name: str | None) -> tuple[VectorProgram, Plan]:
        """Returns what makes vectors of texts, and how it reads them.

        Raises:
          Refused: there is no such prompt.
        """
        prompts = self.encoder.sentence.prompts
        if prompt_name is not None and prompt_name not in prompts:
            known = ", ".join(map(repr, prompts)) or "none"
            raise wrong(f"prompt_name={prompt_name!r} is no prompt of {self.name}; it has {known}", "prompt_name")
        plan = self.encoder.plan(truncate=truncate, prompt=None if prompt_name is None else prompts[prompt_name])
        return self._vectors(plan.recipe), plan

    def plain(self) -> tuple[VectorProgram, Plan]:
        """Returns what makes vectors of token ids, which have no prompt before them."""
        plan = self.encoder.plan(prompt="")
        return self._vectors(plan.recipe), plan

    def _vectors(self, recipe: Recipe) -> VectorProgram:
        key = recipe.pooling, recipe.skip
        if key not in self._of_texts:
            self._of_texts[key] = VectorProgram(self.engine, recipe, self.shapes)
        return self._of_texts[key]


class ServedHead(Served):
    """A model that tells labels or a number of texts and pairs."""

    pipeline = "text-classification"

    def __init__(self, origin: Origin, model: Classifier | Matcher):
        head = model.head
        super().__init__(origin, head.engine, head.tokenizer, head.max_length)
        self.model, self.head = model, head
        self.logits = VectorProgram(head.engine, head.recipe, self.shapes)

    def programs(self) -> list[Program]:
        """Returns all that its requests need."""
        return [self.logits]

    @property
    def of_number(self) -> bool:
        """Whether it tells one number, such as how well a passage answers a query."""
        return isinstance(self.model, Matcher)

    @property
    def labels(self) -> list[str]:
        """What its numbers are of."""
        return self.model.labels if isinstance(self.model, Classifier) else ["LABEL_0"]

    def scores(self, logits_nc: np.ndarray, raw: bool) -> np.ndarray:
        """Returns the numbers of texts, [n, labels]: logits as they are, or what they mean."""
        if raw:
            return logits_nc
        if isinstance(self.model, Classifier):
            return self.model.probabilities_from(logits_nc)
        return self.model.numbers_from(logits_nc)[:, None]


class ServedTagger(Served):
    """A model that tells a tag of each word."""

    pipeline = "token-classification"

    def __init__(self, origin: Origin, tagger: Tagger):
        super().__init__(origin, tagger.engine, tagger.tokenizer, tagger.max_length)
        self.tagger, self.logits = tagger, VectorProgram(tagger.engine, tagger.recipe, self.shapes)
        self.labels = tagger.tags

    def programs(self) -> list[Program]:
        """Returns all that its requests need."""
        return [self.logits]


def load(origin: Origin) -> Served:
    """Loads a model as what it is, a checkpoint of a run or a Hugging Face folder.

    Raises:
      BertjaxError: it cannot be read, or served.
    """
    path = model_folder(origin.folder)
    model_config(path)  # says what a folder lacks that is no model's
    how: Any = {"precision": origin.precision, "mesh": origin.mesh}
    match _kind(path):
        case "classify":
            return ServedHead(origin, Classifier.load(path, **how))
        case "score" | "rerank":
            return ServedHead(origin, Matcher.load(path, **how))
        case "tag":
            return ServedTagger(origin, Tagger.load(path, **how))
        case _:
            return ServedEncoder(origin, Encoder.load(path, **how))


def _kind(path: Path) -> str:
    """Returns the kind of task that a folder's model was trained for."""
    if is_hub_folder(path):
        return read_task_head(path).kind if has_head(read_json(path / "config.json")) else "pretrain"
    from bertjax.runs.folder import RunFolder

    return RunFolder(path).config().task.kind


class Models:
    """The models that are served, by name; one may be replaced at any time by its folder's newest."""

    def __init__(self, origins: list[Origin]):
        self.origins = {origin.name: origin for origin in origins}
        self._loaded: dict[str, Served] = {}

    @property
    def ready(self) -> bool:
        """Whether all are loaded and compiled."""
        return len(self._loaded) == len(self.origins)

    @property
    def all(self) -> list[Served]:
        """Those that are loaded."""
        return [self._loaded[name] for name in self.origins if name in self._loaded]

    def load(self, name: str | None = None) -> None:
        """Loads one, or all, and compiles what it needs; requests under way keep what they began with.

        Raises:
          BertjaxError: one cannot be read; it stays as it was.
        """
        for origin in self.origins.values() if name is None else [self.origins[name]]:
            self._loaded[origin.name] = load(origin).warm_up()

    def get(self, name: str | None) -> Served:
        """Returns a model by its name, or the first one.

        Raises:
          Refused: there is none of this name, or it is not loaded yet.
        """
        if name is None:
            name = next(iter(self.origins))
        if name not in self.origins:
            known = ", ".join(self.origins)
            raise Refused(
                404, f"there is no model {name[:100]!r}; give one of {known}", "model_not_found", param="model"
            )
        if name not in self._loaded:
            raise Refused(503, f"{name} is being loaded; try again", "not_ready", headers={"Retry-After": "2"})
        return self._loaded[name]

    def encoder(self, name: str | None) -> ServedEncoder:
        """Returns a model that makes vectors. Raises Refused where it makes none, or as `get` does."""
        model = self.get(name)
        if not isinstance(model, ServedEncoder):
            raise _unlike(model, "makes no vectors")
        return model

    def head(self, name: str | None) -> ServedHead:
        """Returns a model with labels or a number. Raises Refused where it has none, or as `get` does."""
        model = self.get(name)
        if not isinstance(model, ServedHead):
            raise _unlike(model, "has no head for labels or numbers")
        return model

    def tagger(self, name: str | None) -> ServedTagger:
        """Returns a model that tags words. Raises Refused where it does not, or as `get` does."""
        model = self.get(name)
        if not isinstance(model, ServedTagger):
            raise _unlike(model, "tags no words")
        return model


def _unlike(model: Served, lacks: str) -> Refused:
    return Refused(
        424, f"{model.name} is a model for {model.pipeline} and {lacks}; ask another one", "wrong_model", param="model"
    )
