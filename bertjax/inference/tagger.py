"""The tagger: text or words in, a tag of each word out, and the entities that the tags mark."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from bertjax.config import BertConfig, MeshConfig
from bertjax.config.checks import as_type
from bertjax.data.reader import TokenIds
from bertjax.data.tagged import read_pieces
from bertjax.data.tags import OUTSIDE, Tags, entities, scheme_of
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError, warn
from bertjax.hub.folder import is_hub_folder, read_task_folder
from bertjax.inference.engine import Engine, Recipe, local_mesh
from bertjax.inference.inputs import as_text, as_words, elements
from bertjax.inference.programs import Precision
from bertjax.inference.sequence_head import load_run
from bertjax.models.sentence import Dense
from bertjax.storage.hub_models import model_folder


class FoundEntity(NamedTuple):
    """Words of a text that are one thing."""

    start: int  # in characters of the text; of a list of words, of these with a space between two
    end: int
    text: str
    type: str
    score: float  # mean of the probabilities of its words' tags


class Tagged(NamedTuple):
    """Words of a text, and of each its likeliest tag and how likely the model takes it to be.

    A word that is not read, as it is too far on or has no characters that the vocabulary can read, has the tag "O" and
    the probability 0.
    """

    words: list[str]
    spans: list[tuple[int, int]]  # where each begins and ends, as of `FoundEntity`
    tags: list[str]
    probabilities: list[float]
    entities: list[FoundEntity]


class ReadText(NamedTuple):
    """A text as the model reads it."""

    text: str
    words: list[str]
    spans: list[tuple[int, int]]  # where each begins and ends
    ids: TokenIds | None  # None where no word has a token
    first_tokens: list[int]  # of each word the place of its first; -1 where it is not read
    num_cut: int  # words that are not, as there are too many


class Tagger:
    """Tells tags of words, with dropout off, over all devices of the process. Make one with `Tagger.load`.

    Args:
      config: the model's settings.
      params: its parameters, nested, float32, with the head for tags.
      tokenizer: its vocabulary.
      tags: by their numbers, and how they mark entities.
      max_length: tokens that are read of a text, special ones included, as in training.
      precision: what matrix products multiply.
      mesh: how texts and parameters are spread over the devices of the process; by default texts alone.
    """

    def __init__(
        self,
        config: BertConfig,
        params: dict[str, Any],
        tokenizer: Tokenizer,
        tags: Tags,
        *,
        max_length: int,
        precision: Precision = "float32",
        mesh: MeshConfig | None = None,
    ):
        self.config, self.tokenizer, self._tags, self.max_length = config, tokenizer, tags, max_length
        devices = local_mesh(mesh or MeshConfig(), config)
        encoder = {part: leaves for part, leaves in params.items() if part not in ("pooler", "classifier")}
        shortest = max(1, tokenizer.template.single.num_special)
        self.engine = Engine(config, encoder, precision, devices, shortest=shortest)
        head = params["classifier"]
        layer = Dense(head["kernel"], head.get("bias"), None, "Identity", residual=False)
        self.recipe = Recipe(("tokens",), self.engine.place((layer,)))

    @classmethod
    def load(cls, folder: str | Path, *, precision: Precision = "float32", mesh: MeshConfig | None = None) -> "Tagger":
        """Loads what `bertjax finetune --config tag` trained, or a Hugging Face folder of a model with such a head.

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
            if kind != "tag" or not isinstance(targets, Labels):
                raise BertjaxError(f"{path} has a head for task.kind={kind}; give one of tag")
            return cls(*model, Tags(targets.names, scheme_of(targets.names)), max_length=max_length, **how)
        run, config, params = load_run(path, ("tag",), mesh)
        return cls(config.model, params, run.tokenizer(), run.tags(), max_length=config.data.max_length, **how)

    @property
    def tags(self) -> list[str]:
        """The tags, by their numbers."""
        return list(self._tags.names)

    def predict(self, texts: str | Iterable[str | Sequence[str]]) -> list[Tagged]:
        """Returns the words of each text with their tags, in the order given.

        Args:
          texts: a text or several, whose words are told apart as the vocabulary does, punctuation by itself where it is
            one of pieces; or lists of words, such as a run learns from. What is longer than in training is not read to
            its end, with a warning.

        Raises:
          BertjaxError: something is not a text, nor a list of words.
        """
        several: list[str | list[str]] = []
        for number, text in enumerate(elements(texts, "texts")):
            name = f"text {number}"
            plain = isinstance(text, str)
            several.append(as_text(text, name) if plain else as_words(text, name))
        return self.tag(several)

    def tag(self, texts: Sequence[str | Sequence[str]]) -> list[Tagged]:
        """Returns what `predict` does, of texts and lists of words that are checked already."""
        read = self.read(texts)
        if long := [one.num_cut for one in read if one.num_cut]:
            warn(
                f"{len(long):,} of {len(texts):,} texts have words beyond {self.max_length} tokens, {sum(long):,} in "
                f'all, which are not read, as in training, and have the tag "{OUTSIDE}"',
                stacklevel=3,
            )
        some = [one.ids for one in read if one.ids is not None]
        (logits,) = self.engine.vectors([some], self.recipe)
        of_each = iter(logits)
        return [self.tagged(one, None if one.ids is None else next(of_each)) for one in read]

    def read(self, texts: Sequence[str | Sequence[str]]) -> list[ReadText]:
        """Returns the words of texts, or of lists of words, and the tokens of which each is made."""
        of_texts = iter(self.tokenizer.words_of([text for text in texts if isinstance(text, str)]))
        of_lists = iter(self.tokenizer.encode_words([list(text) for text in texts if not isinstance(text, str)]))
        found = []
        for given in texts:
            if isinstance(given, str):
                text, (spans, pieces) = given, next(of_texts)
            else:
                text, spans, pieces = " ".join(given), _joined(given), next(of_lists)
            one = read_pieces(pieces, len(spans), self.tokenizer.template, self.max_length)
            ids = TokenIds(one.ids, len(one.ids)) if max(one.first_tokens, default=-1) >= 0 else None
            words = [text[start:end] for start, end in spans]
            found.append(ReadText(text, words, spans, ids, one.first_tokens, one.num_cut))
        return found

    def tagged(self, read: ReadText, logits_tc: np.ndarray | None) -> Tagged:
        """Returns the words of a text with their tags.

        Args:
          read: the text.
          logits_tc: of each tag at each of its tokens; None where it has none.
        """
        tags, probabilities = [OUTSIDE] * len(read.words), [0.0] * len(read.words)
        if logits_tc is not None:
            there = [number for number, place in enumerate(read.first_tokens) if place >= 0]
            of_word_wc = softmax(logits_tc[[read.first_tokens[number] for number in there]].astype(np.float64), -1)
            for number, of_word_c in zip(there, of_word_wc, strict=True):
                best = int(of_word_c.argmax())
                tags[number], probabilities[number] = self._tags.names[best], float(of_word_c[best])
        found = []
        for type, first, after in entities(tags, self._tags.scheme):
            start, end = read.spans[first][0], read.spans[after - 1][1]
            score = float(np.mean(probabilities[first:after]))
            found.append(FoundEntity(start, end, read.text[start:end], type, score))
        return Tagged(read.words, read.spans, tags, probabilities, found)


def _joined(words: Sequence[str]) -> list[tuple[int, int]]:
    """Returns where words begin and end in these with a space between two."""
    spans, start = [], 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return spans
