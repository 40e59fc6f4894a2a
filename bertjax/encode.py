"""A trained folder in, token representations out."""

import functools
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import BertConfig
from bertjax.data.pairs import truncate
from bertjax.data.tokenizer import CLS, PAD, SEP, SPECIAL_TOKENS, UNK, Tokenizer
from bertjax.errors import BertjaxError
from bertjax.model import Bert
from bertjax.run import RunFolder

Pooling = Literal["cls", "mean"]
Words = Sequence[Sequence[str]]

# Rows and lengths are padded up to a few sizes, so that a new length seldom means a new compilation.
_SHORTEST_LENGTH = 16
_ROWS = (1, 8, 64)


class Encoder:
    """Text to vectors, with dropout off. Make one with `Encoder.load`."""

    def __init__(self, config: BertConfig, params: dict[str, Any], tokenizer: Tokenizer):
        self.config, self.tokenizer = config, tokenizer
        self._params = params
        self._forward = jax.jit(functools.partial(_forward, Bert(config)), static_argnames="pooling")

    @classmethod
    def load(cls, folder: str | Path) -> "Encoder":
        """The newest checkpoint of a run. Raises BertjaxError where the folder has none."""
        run = RunFolder(folder)
        config = run.config().model
        params = run.load_params(Bert(config), jax.sharding.SingleDeviceSharding(jax.devices()[0]))
        return cls(config, params, run.tokenizer())

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
        self._warn_of_unknown([tokens, pair or ()])
        rows = self._rows([tokens], None if pair is None else [pair], truncate)
        return self._run(rows, pooling=None)[:, : len(rows[0][0])]

    def tokens_read(
        self, tokens: Sequence[str], pair: Sequence[str] | None = None, *, truncate: bool = False
    ) -> list[str]:
        """What `encode_tokens` reads: t tokens, special ones included, unknown words as `<unk>`."""
        ((ids, _),) = self._rows([tokens], None if pair is None else [pair], truncate)
        return self.tokenizer.tokens(ids)

    def encode(
        self,
        texts: str | Iterable[str],
        pairs: str | Iterable[str] | None = None,
        *,
        pooling: Pooling = "mean",
        truncate: bool = False,
    ) -> np.ndarray:
        """One vector a text, or a pair of texts; lower-cased and split into words as in training.

        A special token written in the text, such as `<mask>`, is read as that token.

        Args:
          pooling: "mean" over all tokens, special ones included, or the vector of "cls".
          truncate: shorten what is longer than the model's positions, instead of an error.

        Returns:
          float32 [texts, hidden], in the order given.
        """
        if pooling not in ("cls", "mean"):
            raise BertjaxError(f"pooling={pooling!r} is not known; give 'cls' or 'mean'")
        firsts, seconds = self._split(texts), None if pairs is None else self._split(pairs)
        if seconds is not None and len(seconds) != len(firsts):
            raise BertjaxError(f"{len(firsts)} texts and {len(seconds)} pairs; give one pair for each text")
        self._warn_of_unknown([*firsts, *(seconds or [])])
        rows = self._rows(firsts, seconds, truncate)
        vectors = np.zeros((len(rows), self.config.hidden_size), np.float32)
        by_length = sorted(range(len(rows)), key=lambda number: len(rows[number][0]))
        for start in range(0, len(rows), _ROWS[-1]):
            some = by_length[start : start + _ROWS[-1]]
            vectors[some] = self._run([rows[number] for number in some], pooling=pooling)
        return vectors

    def _split(self, texts: str | Iterable[str]) -> Words:
        return [self.tokenizer.split(text) for text in ([texts] if isinstance(texts, str) else texts)]

    def _rows(self, firsts: Words, seconds: Words | None, shorten: bool) -> list[tuple[list[int], int]]:
        """For each text its ids with special tokens, and how many of them are segment A's."""
        rows = []
        for number, first in enumerate(firsts):
            a = self.tokenizer.ids(first)
            b = None if seconds is None else self.tokenizer.ids(seconds[number])
            room = self.config.max_position - (2 if b is None else 3)
            if len(a) + len(b or []) > room:
                if not shorten:
                    which = f"text {number}" if len(firsts) > 1 else "the text"
                    raise BertjaxError(
                        f"{which} has {len(a) + len(b or [])} words, but only {room} fit beside special tokens in the "
                        f"model's {self.config.max_position} positions; shorten it, or have it shortened by truncate"
                    )
                len_a, len_b = truncate(len(a), len(b or []), room)
                a, b = a[:len_a], None if b is None else b[:len_b]
            rows.append(([CLS, *a, SEP, *([] if b is None else [*b, SEP])], len(a) + 2))
        return rows

    def _warn_of_unknown(self, texts: Words) -> None:
        words = [word for text in texts for word in text]
        numbered = zip(words, self.tokenizer.ids(words), strict=True)
        unknown = [word for word, token in numbered if token == UNK and word != SPECIAL_TOKENS[UNK]]
        if unknown:
            some = ", ".join(list(dict.fromkeys(unknown))[:5])
            message = (
                f"read as <unk>, for the vocabulary lacks them: {len(unknown)} of {len(words)} words, such as {some}"
            )
            warnings.warn(message, stacklevel=3)

    def _run(self, rows: list[tuple[list[int], int]], pooling: Pooling | None) -> np.ndarray:
        longest = max(len(ids) for ids, _ in rows)
        length = _SHORTEST_LENGTH
        while length < longest:
            length *= 2
        shape = (min(n for n in _ROWS if n >= len(rows)), min(length, self.config.max_position))
        tokens_bt, segments_bt, sequences_bt = np.full(shape, PAD), np.zeros(shape, int), np.zeros(shape, int)
        for row, (ids, len_a) in enumerate(rows):
            tokens_bt[row, : len(ids)] = ids
            segments_bt[row, len_a : len(ids)] = 1
            sequences_bt[row, : len(ids)] = 1
        vectors = self._forward(self._params, tokens_bt, segments_bt, sequences_bt, pooling=pooling)
        return np.asarray(vectors)[: len(rows)]


def _forward(
    model: Bert,
    params: dict[str, Any],
    tokens_bt: Array,
    segments_bt: Array,
    sequences_bt: Array,
    *,
    pooling: Pooling | None,
) -> Array:
    """Representations [b, t, d], or their pooled vectors [b, d]."""
    positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
    args = (tokens_bt, segments_bt, positions_bt, sequences_bt)
    encoded_btd = model.apply({"params": params}, *args, method=model.encode)
    if pooling is None:
        return encoded_btd
    if pooling == "cls":
        return encoded_btd[:, 0]
    real_bt1 = (sequences_bt > 0)[:, :, None]
    return jnp.where(real_bt1, encoded_btd, 0).sum(1) / jnp.maximum(real_bt1.sum(1), 1)
