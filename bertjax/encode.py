"""A trained folder in, token representations out."""

import functools
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import BertConfig
from bertjax.data.packing import Placement, pack
from bertjax.data.sequences import truncate
from bertjax.data.tokenizer import UNK, Tokenizer
from bertjax.errors import BertjaxError
from bertjax.model import Bert
from bertjax.pretrained import load

Pooling = Literal["cls", "mean"]
Precision = Literal["float32", "bfloat16"]
Words = Sequence[Sequence[str]]
Row = tuple[list[int], int]  # a text's ids with special tokens, and how many are segment A's

# Texts are packed into rows of few shapes, seven at most, so that a new length seldom means a new compilation.
_LENGTHS = (16, 128)  # and the model's longest
_TOKENS_AT_ONCE, _TOKENS_AT_ONCE_ON_CPU = 16384, 2048
_SLACK = 2  # tokens that a row may leave empty for the sake of shorter texts


class Encoder:
    """Text to vectors, with dropout off. Make one with `Encoder.load`."""

    def __init__(
        self, config: BertConfig, params: dict[str, Any], tokenizer: Tokenizer, *, precision: Precision = "float32"
    ):
        self.config, self.tokenizer = config, tokenizer
        dtype = jnp.dtype(precision)
        self._params = jax.tree.map_with_path(
            lambda path, leaf: leaf.astype(dtype) if path[-1].key == "kernel" else leaf, params
        )
        self._forward = jax.jit(functools.partial(_forward, Bert(config, dtype=dtype)))
        self._lengths = sorted({min(length, config.max_position) for length in (*_LENGTHS, config.max_position)})

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
        self._warn_of_unknown([tokens, pair or ()])
        rows = self._rows([tokens], None if pair is None else [pair], truncate)
        alone = Placement(*np.zeros((3, 1), int))
        return np.asarray(self._run(rows, alone)[0])[:, : len(rows[0][0])]

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
        sizes = np.array([len(ids) for ids, _ in rows], int)
        shorter = 0
        for length in self._lengths[-2:]:
            chosen = np.flatnonzero((sizes > shorter) & (sizes <= length))
            shorter = length
            if not len(chosen):
                continue
            placement = pack(sizes[chosen], row_length=length, max_sequences=_most_texts(length), slack=_SLACK)
            for start in range(0, placement.num_rows, _most_rows(length)):
                some = (placement.row_n >= start) & (placement.row_n < start + _most_rows(length))
                here = placement.take(some)
                here = here._replace(row_n=here.row_n - start)
                pooled_bkd = self._run([rows[number] for number in chosen[some]], here, pooling)[1]
                vectors[chosen[some]] = np.asarray(pooled_bkd)[here.row_n, here.slot_n]
        return vectors

    def _split(self, texts: str | Iterable[str]) -> Words:
        return [self.tokenizer.split(text) for text in ([texts] if isinstance(texts, str) else texts)]

    def _rows(self, firsts: Words, seconds: Words | None, shorten: bool) -> list[Row]:
        """For each text its ids with special tokens, and how many of them are segment A's."""
        rows, cls, sep = [], self.tokenizer.vocabulary.cls, self.tokenizer.vocabulary.sep
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
            rows.append(([cls, *a, sep, *([] if b is None else [*b, sep])], len(a) + 2))
        return rows

    def _warn_of_unknown(self, texts: Words) -> None:
        words = [word for text in texts for word in text]
        numbered, unk = zip(words, self.tokenizer.ids(words), strict=True), self.tokenizer.vocabulary.unk
        unknown = [word for word, token in numbered if token == unk and word != self.tokenizer.rules.special[UNK]]
        if unknown:
            some = ", ".join(list(dict.fromkeys(unknown))[:5])
            message = (
                f"read as <unk>, for the vocabulary lacks them: {len(unknown)} of {len(words)} words, such as {some}"
            )
            warnings.warn(message, stacklevel=3)

    def _run(self, rows: list[Row], placement: Placement, pooling: Pooling = "mean") -> tuple[Array, Array]:
        """Representations [b, t, d] and pooled vectors [b, k, d] of texts, each in its place."""
        end = max(offset + len(ids) for (ids, _), offset in zip(rows, placement.offset_n, strict=True))
        length = next(length for length in self._lengths if length >= end)
        most = _most_rows(length)
        shape = (next(n for n in (1, -(-most // 4), most) if n >= placement.num_rows), length)
        tokens_bt, segments_bt, positions_bt, sequences_bt = (np.zeros(shape, np.int32) for _ in range(4))
        for (ids, len_a), row, offset, slot in zip(rows, *placement, strict=True):
            end = offset + len(ids)
            tokens_bt[row, offset:end] = ids
            segments_bt[row, offset + len_a : end] = 1
            positions_bt[row, offset:end] = np.arange(len(ids))
            sequences_bt[row, offset:end] = slot + 1
        batch = (tokens_bt, segments_bt, positions_bt, sequences_bt)
        return self._forward(self._params, *batch, pooling == "cls")


def _most_rows(length: int) -> int:
    return max(1, (_TOKENS_AT_ONCE if jax.default_backend() != "cpu" else _TOKENS_AT_ONCE_ON_CPU) // length)


def _most_texts(length: int) -> int:
    return max(1, length // 2)  # the shortest is <cls> <sep>


def _forward(
    model: Bert,
    params: dict[str, Any],
    tokens_bt: Array,
    segments_bt: Array,
    positions_bt: Array,
    sequences_bt: Array,
    cls_only: Array,
) -> tuple[Array, Array]:
    """Representations [b, t, d], and the mean of each sequence's, or that of its `<cls>`, [b, k, d]."""
    args = (tokens_bt, segments_bt, positions_bt, sequences_bt)
    encoded_btd = model.apply({"params": params}, *args, method=model.encode)
    numbers_1k1 = 1 + jnp.arange(_most_texts(tokens_bt.shape[1]))[None, :, None]
    pooled_bkt = (sequences_bt[:, None] == numbers_1k1) & ((positions_bt == 0) | ~cls_only)[:, None]
    shares_bkt = pooled_bkt / jnp.maximum(pooled_bkt.sum(-1, keepdims=True), 1)
    # Padding means nothing, and 0 times it must be 0.
    encoded_btd = jnp.where(sequences_bt[:, :, None] > 0, encoded_btd, 0)
    return encoded_btd, jnp.einsum("bkt,btd->bkd", shares_bkt, encoded_btd)
