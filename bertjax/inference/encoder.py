"""A trained folder in, token representations out."""

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, overload

import jax
import numpy as np

from bertjax.config import BertConfig
from bertjax.data.tokenizer.tokenizer import MASK, UNK, Tokenizer
from bertjax.errors import BertjaxError
from bertjax.inference.engine import Inference, Pooling, Precision, Vectors, late
from bertjax.inference.pretrained import load
from bertjax.inference.texts import Item, Reader, Row, Text, as_items

_BATCHES_OF_A_WINDOW = 16
_MASKS = ("<mask>", "[MASK]")


class Guess(NamedTuple):
    """A word for a mask."""

    word: str
    probability: float


class Use(NamedTuple):
    """A word in a text."""

    text: int  # the text's number
    position: int  # of the word's first token, as `tokens_read` counts them
    vector_d: np.ndarray


class Encoder:
    """Text to vectors, with dropout off, over all devices of the process. Make one with `Encoder.load`."""

    def __init__(
        self, config: BertConfig, params: dict[str, Any], tokenizer: Tokenizer, *, precision: Precision = "float32"
    ):
        self.config, self.tokenizer, self.precision = config, tokenizer, precision
        self._inference = Inference(config, params, precision)
        self._params = self._inference.params

    @classmethod
    def load(cls, folder: str | Path, *, precision: Precision = "float32") -> "Encoder":
        """The newest checkpoint of a run, or a BERT in a Hugging Face folder (safetensors only).

        Args:
          precision: what matrix products multiply, float32 or bfloat16; vectors are float32 with either.

        Raises:
          BertjaxError: the folder has no checkpoint or no BERT that can be read, or the precision is not known.
        """
        if precision not in get_args(Precision):
            raise BertjaxError(f"precision={precision!r} is not known; give one of {', '.join(get_args(Precision))}")
        return cls(*load(folder), precision=precision)

    def encode_tokens(
        self, tokens: Sequence[str], pair: Sequence[str] | None = None, *, truncate: bool = False
    ) -> np.ndarray:
        """Representations of `<cls> tokens <sep>` or `<cls> tokens <sep> pair <sep>`.

        Args:
          tokens: words as in the vocabulary; one that is not there becomes `<unk>`, with a warning.
          truncate: shorten what is longer than the model's positions, instead of an error.

        Returns:
          float32 [1, t, hidden], t counting the special tokens.
        """
        if isinstance(tokens, str) or isinstance(pair, str):
            raise BertjaxError("encode_tokens takes lists of words, got text; split it, or give it to encode")
        reader = self._reader(truncate)
        row = reader.row(tokens, pair, lambda: "the text")
        if reader.complaint:
            warnings.warn(reader.complaint, stacklevel=2)
        return self._inference.tokens(row)[None]

    def tokens_read(
        self, tokens: Sequence[str], pair: Sequence[str] | None = None, *, truncate: bool = False
    ) -> list[str]:
        """What `encode_tokens` reads: t tokens, special ones included, unknown words as `<unk>`."""
        return self.tokenizer.tokens(self._reader(truncate).row(tokens, pair, lambda: "the text").ids)

    @overload
    def encode(
        self,
        texts: Text | Iterable[Text],
        pairs: str | Iterable[str] | None = None,
        *,
        pooling: Literal["tokens"],
        normalize: bool = False,
        truncate: bool = False,
    ) -> list[np.ndarray]: ...

    @overload
    def encode(
        self,
        texts: Text | Iterable[Text],
        pairs: str | Iterable[str] | None = None,
        *,
        pooling: Literal["cls", "mean", "max"] = "mean",
        normalize: bool = False,
        truncate: bool = False,
    ) -> np.ndarray: ...

    def encode(
        self,
        texts: Text | Iterable[Text],
        pairs: str | Iterable[str] | None = None,
        *,
        pooling: Pooling = "mean",
        normalize: bool = False,
        truncate: bool = False,
    ) -> Vectors:
        """One vector a text, or a pair of texts; lower-cased and split into words as in training.

        A special token written in the text, such as `<mask>`, is read as that token.

        Args:
          texts: a string, or any iterable of strings and of pairs of them as tuples; a string may be empty.
          pairs: the second text of each, instead of tuples.
          pooling: "mean" or "max" over all tokens, special ones included; the vector of "cls"; or of all "tokens".
          normalize: vectors of length 1; one of zeros stays.
          truncate: shorten what is longer than the model's positions, instead of an error.

        Returns:
          float32 [texts, hidden], in the order given. Of "tokens" a list with [t, hidden] for each text, t counting the
          special tokens.

        Raises:
          BertjaxError: something is no text or too long, or the pooling is not known; or pairs and texts do not match.
        """
        items, reader = as_items(texts, pairs), self._reader(truncate)
        _check_pooling(pooling)
        rows = reader.rows(items, lambda number: f"text {number}" if len(items) > 1 else "the text")
        if reader.complaint:
            warnings.warn(reader.complaint, stacklevel=2)
        (vectors,) = self._inference.vectors([rows], pooling, normalize)
        return vectors

    def stream(
        self,
        windows: Iterable[Sequence[Item]],
        *,
        pooling: Pooling = "mean",
        normalize: bool = False,
        truncate: bool = False,
        name: Callable[[int], str] = "text {}".format,
    ) -> Iterator[Vectors]:
        """As `encode`, window after window; one is read and split while the devices are at the one before.

        Warns once, at the end, of all words that the vocabulary lacks.

        Args:
          windows: each of as many texts as are to be sorted by length and held at once.
          name: what to call a text in an error, by its number, counted from the first window on.
        """
        _check_pooling(pooling)
        reader = self._reader(truncate)
        yield from self._inference.vectors(_rows_ahead(reader, windows, name), pooling, normalize)
        if reader.complaint:
            warnings.warn(reader.complaint, stacklevel=2)

    def fill_mask(self, text: str, *, top: int = 5) -> list[list[Guess]]:
        """For each mask in the text the words that are likeliest there, best first.

        Args:
          text: lower-cased and split as in training; a mask is `<mask>` or `[MASK]`, whatever the vocabulary has.
          top: how many words of each.

        Raises:
          BertjaxError: the text has no mask or is too long, or the model came without a head that predicts words.
        """
        if not self._inference.has_mlm_head():
            raise BertjaxError("this model has no head that predicts words (cls.predictions); give one that has")
        if top < 1:
            raise BertjaxError(f"top={top} is no number of words; give 1 or more")
        mask = self.tokenizer.rules.special[MASK]
        pieces = re.split("|".join(map(re.escape, {mask, *_MASKS})), text)
        if len(pieces) == 1:
            raise BertjaxError(f"there is no {mask} in {text!r}; put one where a word is to be guessed")
        words = self.tokenizer.split(pieces[0])
        for piece in pieces[1:]:  # apart, so that no rule of the tokenizer can split or change a mask
            words += [mask, *self.tokenizer.split(piece)]
        reader = self._reader(shorten=False)
        row = reader.row(words, None, lambda: "the text")
        if reader.complaint:
            warnings.warn(reader.complaint, stacklevel=2)
        positions = [position for position, token in enumerate(row.ids) if token == self.tokenizer.vocabulary.mask]
        likely_pv = self._inference.fill(row, positions)[:, : self.tokenizer.vocab_size]  # others have no name
        best_pn = np.argsort(-likely_pv, axis=-1, kind="stable")[:, :top]
        return [
            [Guess(*guess) for guess in zip(self.tokenizer.tokens(best_n), likely_v[best_n].tolist(), strict=True)]
            for best_n, likely_v in zip(best_pn, likely_pv, strict=True)
        ]

    def word_vectors(self, word: str, texts: str | Iterable[str], *, truncate: bool = False) -> list[Use]:
        """Every use of a word in the texts, in their order, with its vector there: the mean over the word's tokens.

        Args:
          word: lower-cased and split as in training; several words are looked for one after the other.
          truncate: shorten what is longer than the model's positions, instead of an error; what is cut off is no use.

        Raises:
          BertjaxError: the word is empty or cannot be read, or something is no text or too long.
        """
        needle = self.tokenizer.split(word)
        if not needle:
            raise BertjaxError(f"the word {word!r} is empty; give one that is in the texts")
        if self.tokenizer.rules.special[UNK] in needle:
            raise BertjaxError(f"the vocabulary has no tokens for {word!r}; give another word")
        items, reader = as_items(texts), self._reader(truncate)
        rows = reader.rows(items, lambda number: f"text {number}" if len(items) > 1 else "the text")
        if reader.complaint:
            warnings.warn(reader.complaint, stacklevel=2)
        (vectors,) = self._inference.vectors([rows], "tokens", False)
        return [
            Use(number, start, vectors_td[start : start + len(needle)].mean(axis=0))
            for number, ((text, _), vectors_td) in enumerate(zip(items, vectors, strict=True))
            for start in _places(needle, self.tokenizer.split(text)[: len(vectors_td) - 2])
        ]

    @property
    def tokens_at_once(self) -> int:
        """As many make a good window of a stream: its batches are full, the last ones apart."""
        return _BATCHES_OF_A_WINDOW * self._inference.tokens_at_once

    def fingerprint(self) -> str:
        """Changes with the model's shape, its parameters and its vocabulary."""
        digest = hashlib.sha256(repr(self.config).encode())
        digest.update(self.tokenizer.to_json().encode())
        for leaf in jax.tree.leaves(self._params):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    def _reader(self, shorten: bool) -> Reader:
        return Reader(self.tokenizer, self.config.max_position, shorten=shorten)


def _check_pooling(pooling: str) -> None:
    if pooling not in get_args(Pooling):
        known = ", ".join(map(repr, get_args(Pooling)))
        raise BertjaxError(f"pooling={pooling!r} is not known; give one of {known}")


def _rows_ahead(reader: Reader, windows: Iterable[Sequence[Item]], name: Callable[[int], str]) -> Iterator[list[Row]]:
    """The rows of each window, made in another thread while the caller is at those of the window before."""
    with ThreadPoolExecutor(1) as other_thread:
        submitted = (other_thread.submit(reader.rows, items, name) for items in windows)
        for rows in late(submitted, 1):
            yield rows.result()


def _places(needle: list[str], tokens: list[str]) -> Iterator[int]:
    """Where the tokens of a word are among those of a text, `<cls>` before them counted; not as a part of a word."""
    for start in range(len(tokens) - len(needle) + 1):
        end = start + len(needle)
        if tokens[start:end] == needle and not (end < len(tokens) and tokens[end].startswith("##")):
            yield 1 + start
