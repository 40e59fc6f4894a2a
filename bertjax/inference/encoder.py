"""The encoder: text in, vectors and words for masks out."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, overload

import jax
import numpy as np

from bertjax.config import BertConfig, MeshConfig
from bertjax.config.checks import as_type
from bertjax.data.reader import Reader, TokenIds
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError, warn
from bertjax.hub.sentence_transformers import SentenceSettings, read_settings
from bertjax.inference import pretrained
from bertjax.inference.engine import TOKENS, Engine, Pooling, Vectors, local_mesh
from bertjax.inference.inputs import Text, as_items, as_text, as_words
from bertjax.inference.masks import Guess, likeliest, read_masks
from bertjax.inference.plan import Plan, make_plan
from bertjax.inference.programs import Precision
from bertjax.inference.uses import Use, tokens_of_word, uses_of
from bertjax.storage.hub_models import model_folder

_BATCHES_PER_WINDOW = 16
_MEAN = SentenceSettings()


class Encoder:
    """Turns text into vectors, with dropout off, over all devices of the process. Make one with `Encoder.load`.

    Args:
      config: the model's settings.
      params: its parameters, nested, float32; the heads may be missing.
      tokenizer: its vocabulary.
      precision: what matrix products multiply; vectors are float32 with either.
      sentence: how the vector of a text is made where `encode` is not told.
      mesh: how texts and parameters are spread over the devices of the process; by default texts alone.

    Raises:
      BertjaxError: these are not of one model.
    """

    def __init__(
        self,
        config: BertConfig,
        params: dict[str, Any],
        tokenizer: Tokenizer,
        *,
        precision: Precision = "float32",
        sentence: SentenceSettings = _MEAN,
        mesh: MeshConfig | None = None,
    ):
        self.config = as_type(config, BertConfig, "config")
        self.tokenizer = as_type(tokenizer, Tokenizer, "tokenizer")
        self.precision = as_type(precision, Precision, "precision")
        pretrained.check_fit(self.config, as_type(params, dict, "params"), self.tokenizer)
        devices = local_mesh(as_type(mesh, MeshConfig | None, "mesh") or MeshConfig(), self.config)
        shortest = max(1, self.tokenizer.template.single.num_special)
        self.engine = Engine(self.config, params, self.precision, devices, shortest=shortest)
        self._params = self.engine.params
        sentence = as_type(sentence, SentenceSettings, "sentence")
        self.sentence = sentence._replace(layers=self.engine.place(sentence.layers))

    @classmethod
    def load(cls, folder: str | Path, *, precision: Precision = "float32", mesh: MeshConfig | None = None) -> "Encoder":
        """Loads the newest checkpoint of a run, or the BERT of a Hugging Face folder (safetensors only).

        What sentence-transformers keeps in such a folder is what `encode` does by default.

        Args:
          folder: a run's or a Hugging Face one, or ORG/NAME or ORG/NAME@REVISION on the hub.
          precision: what matrix products multiply, float32 or bfloat16; vectors are float32 with either.
          mesh: how texts and parameters are spread over the devices of the process: `MeshConfig(fsdp=4)` for a model
            that one device cannot hold. By default each device has the whole model, and texts of its own.

        Raises:
          BertjaxError: the folder has no checkpoint or no BERT that can be read, or a module of sentence-transformers
            that is not supported, the precision is not known, or the mesh does not suit the devices or the model.
        """
        precision = as_type(precision, Precision, "precision")
        mesh = as_type(mesh, MeshConfig | None, "mesh")
        path = model_folder(as_type(folder, Path, "folder"))
        devices = None if mesh is None else local_mesh(mesh, pretrained.model_config(path))
        read = pretrained.load(path, devices)
        sentence = read_settings(path, read.config.hidden_size, lowercases=read.tokenizer.rules.lowercase)
        return cls(*read, precision=precision, sentence=sentence, mesh=mesh)

    def encode_tokens(
        self, tokens: Iterable[str], pair: Iterable[str] | None = None, *, truncate: bool = False
    ) -> np.ndarray:
        """Returns the representations of `<cls> tokens <sep>`, or of `<cls> tokens <sep> pair <sep>`.

        Args:
          tokens: words as in the vocabulary; one that is not there becomes `<unk>`, with a warning.
          pair: words of a second text.
          truncate: shorten what is longer than the model's positions, instead of an error.

        Returns:
          float32 [1, t, hidden], t counting the special tokens.

        Raises:
          BertjaxError: text is given instead of lists of words, or it is too long.
        """
        reader = self._reader(truncate)
        text = _read_words(reader, tokens, pair)
        if reader.unknown_words:
            warn(reader.unknown_words, stacklevel=2)
        return self.engine.token_vectors(text)[None]

    def tokens_read(
        self, tokens: Iterable[str], pair: Iterable[str] | None = None, *, truncate: bool = False
    ) -> list[str]:
        """Returns the t tokens that `encode_tokens` reads: special ones included, unknown words as `<unk>`.

        Args:
          tokens, pair, truncate: as for `encode_tokens`.
        """
        return self.tokenizer.tokens(_read_words(self._reader(truncate), tokens, pair).ids)

    @overload
    def encode(
        self,
        texts: Text | Iterable[Text],
        pairs: str | Iterable[str] | None = None,
        *,
        pooling: Literal["tokens"],
        normalize: bool | None = None,
        truncate: bool = False,
        prompt: str | None = None,
    ) -> list[np.ndarray]: ...

    @overload
    def encode(
        self,
        texts: Text | Iterable[Text],
        pairs: str | Iterable[str] | None = None,
        *,
        pooling: Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] | None = None,
        normalize: bool | None = None,
        truncate: bool = False,
        prompt: str | None = None,
    ) -> np.ndarray: ...

    def encode(
        self,
        texts: Text | Iterable[Text],
        pairs: str | Iterable[str] | None = None,
        *,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        truncate: bool = False,
        prompt: str | None = None,
    ) -> Vectors:
        """Returns one vector for each text or pair of texts, lower-cased and split into words as in training.

        A special token written in the text, such as `<mask>`, is read as that token.

        Args:
          texts: a string, a pair of strings as a tuple, or several of these in order: a list, an array, a column of a
            table, a generator. A string may be empty. A tuple is always a pair, so `("a", "b")` is one, as it is in
            `[("a", "b")]`; two texts are `["a", "b"]`, and `("a", "b", "c")` is refused.
          pairs: the second text of each, instead of tuples.
          pooling: by default a folder of sentence-transformers is followed in all that it says: pooling, layers after
            it, prompt, length 1 and longest text; of others the mean is taken. Given, it is of the model alone: "mean"
            or "max" over all tokens, special ones included; "cls" or "lasttoken" for the vector of the first or last;
            "mean_sqrt_len_tokens" for their sum over the root of their number; "weightedmean" for a mean in which each
            token weighs its position; "tokens" for the vectors of all.
          normalize: make the length of each vector 1, one of zeros excepted, or don't; by default as pooling says.
          truncate: shorten what is longer than the folder says or the model's positions, instead of an error.
          prompt: put before each text, or the first of a pair; by default as pooling says. `sentence.prompts` has those
            of the folder by name.

        Returns:
          float32 [texts, size], in the order given; size is the model's hidden size unless the folder has it otherwise.
          For "tokens" a list with [t, hidden] for each text, t counting the special tokens.

        Raises:
          BertjaxError: something is not a text or too long, the pooling is not known, or pairs and texts do not match.
        """
        plan, items = self.plan(pooling, normalize, truncate, prompt), as_items(texts, pairs)
        read = plan.read(items, lambda number: f"text {number}" if len(items) > 1 else "the text")
        if plan.reader.unknown_words:
            warn(plan.reader.unknown_words, stacklevel=2)
        (vectors,) = self.engine.vectors([read], plan.recipe)
        return vectors

    def stream(
        self,
        windows: Iterable[Text | Iterable[Text]],
        *,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        truncate: bool = False,
        prompt: str | None = None,
        name: Callable[[int], str] = "text {}".format,
    ) -> Iterator[Vectors]:
        """Encodes window after window; one is read and split while the devices are at the one before.

        Warns once, at the end, of all words that the vocabulary lacks.

        Args:
          windows: texts as `encode` takes them, those of a window to be sorted by length and held in memory together;
            `tokens_per_window` make a good one.
          pooling: as for `encode`, and so are `normalize`, `truncate` and `prompt`.
          name: what an error calls a text, by its number, counted from the first window on.

        Yields:
          What `encode` returns, for each window in turn.
        """
        name = as_type(name, Callable, "name")
        plan = self.plan(pooling, normalize, truncate, prompt)
        yield from self.engine.vectors(plan.read_ahead(windows, name), plan.recipe)
        if plan.reader.unknown_words:
            warn(plan.reader.unknown_words, stacklevel=2)

    def fill_mask(self, text: str, *, top: int = 5) -> list[list[Guess]]:
        """Returns the likeliest words for each mask in a text, best first.

        Args:
          text: lower-cased and split as in training; a mask is `<mask>` or `[MASK]`, whatever the vocabulary has.
          top: how many words for each mask.

        Raises:
          BertjaxError: the text has no mask or is too long, or the model came without a mask or a head that predicts
            words.
        """
        top = as_type(top, int, "top")
        if top < 1:
            raise BertjaxError(f"top={top} is no number of words; give 1 or more")
        reader = self._reader(truncate=False)
        read, positions = self.read_masks(text, reader)
        if reader.unknown_words:
            warn(reader.unknown_words, stacklevel=2)
        return likeliest(self.engine.token_probabilities(read, positions), self.tokenizer, top)

    def read_masks(self, text: str, reader: Reader | None = None) -> tuple[TokenIds, list[int]]:
        """Returns the token ids of a text with masks in it, and the masks' positions.

        Args:
          text: as for `fill_mask`, and so are errors.
          reader: counts the words that the vocabulary lacks.
        """
        if not self.engine.has_mlm_head():
            raise BertjaxError("this model has no head that predicts words; give one that has")
        return read_masks(as_text(text, "the text"), self.tokenizer, reader or self._reader(truncate=False))

    def word_vectors(self, word: str, texts: str | Iterable[str], *, truncate: bool = False) -> list[Use]:
        """Returns every use of a word in the texts, in their order, with its vector there.

        The vector is the mean over the word's tokens.

        Args:
          word: lower-cased and split as in training; several words must follow each other in the text.
          texts: a string, or several in order, as for `encode`, but no pairs.
          truncate: shorten what is longer than the model's positions, instead of an error; what is cut off does not
            count.

        Raises:
          BertjaxError: the word is empty or the vocabulary lacks it, or something is not a text or too long.
        """
        needles = tokens_of_word(as_text(word, "the word"), self.tokenizer)
        items, reader = as_items(texts), self._reader(truncate)
        for number, (_, second) in enumerate(items):
            if second is not None:
                raise BertjaxError(f"text {number} is a pair; give its two strings as texts in a list")
        read = reader.read_all(items, lambda number: f"text {number}" if len(items) > 1 else "the text")
        if reader.unknown_words:
            warn(reader.unknown_words, stacklevel=2)
        (vectors,) = self.engine.vectors([read], TOKENS)
        return list(uses_of(needles, items, vectors, self.tokenizer))

    def vector_size(self, pooling: Pooling | None = None) -> int:
        """Returns how many numbers there are in a vector that `encode` makes with this pooling."""
        return self.engine.vector_size(self.plan(pooling).recipe)

    @property
    def compile_seconds(self) -> float:
        """Seconds that compiling has taken so far: a program for each of a few shapes."""
        return self.engine.compile_seconds

    @property
    def tokens_per_window(self) -> int:
        """Tokens that make a good window of a stream: all but its last batches are full."""
        return _BATCHES_PER_WINDOW * self.engine.tokens_per_batch

    def fingerprint(self) -> str:
        """Returns a digest of the model's settings, its parameters and its tokenizer, and of how it makes vectors."""
        digest = hashlib.sha256(repr(self.config).encode())
        digest.update(f"{self.tokenizer.to_json()}{self.tokenizer.template}".encode())
        if self.sentence != _MEAN:
            shape = jax.tree.structure(self.sentence.layers)
            digest.update(repr(self.sentence._replace(layers=(), prompts=dict(self.sentence.prompts))).encode())
            digest.update(repr(shape).encode())
        for leaf in jax.tree.leaves((self._params, self.sentence.layers)):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    def plan(
        self,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        truncate: bool = False,
        prompt: str | None = None,
    ) -> Plan:
        """Returns how vectors are made: as asked for, else as the folder says; the arguments are those of `encode`."""
        asked: Any = {"pooling": pooling, "normalize": normalize, "truncate": truncate, "prompt": prompt}
        return make_plan(self.tokenizer, self.config.max_position, self.sentence, **asked)

    def _reader(self, truncate: bool) -> Reader:
        truncate = as_type(truncate, bool, "truncate")
        return Reader(self.tokenizer, self.config.max_position, truncate=truncate)


def _read_words(reader: Reader, tokens: Iterable[str], pair: Iterable[str] | None) -> TokenIds:
    words = as_words(tokens, "tokens"), None if pair is None else as_words(pair, "pair")
    return reader.read(*words, lambda: "the text")
