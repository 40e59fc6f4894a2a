"""Looks at single words: the model guesses those that are hidden from it, or represents those that it reads."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from bertjax.data.batching.random import random_below, random_bits
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.models.bert import Bert, params_template
from bertjax.parallel.sharding import by_name, by_rows, gathered_outside_layers, place_batch, replicated

GUESSES = 5
_LONGEST = 64  # tokens of a row: long sentences cost more than they show
_ROWS = 32  # looked at together, filled up to as many, so that one program does for all
_FEWEST = 6  # words of a sentence that tell something about the one that is hidden
_LOOKED_AT = 1000  # sentences, for one that will do


class Place(NamedTuple):
    """A word in a sentence."""

    ids: np.ndarray  # the sentence's
    place: int


class Guess(NamedTuple):
    """A word for a hidden one."""

    word: str
    probability: float


def hide_words(corpus: Corpus, tokenizer: Tokenizer, *, number: int, max_length: int) -> list[Place]:
    """Chooses words to hide, always the same, from all over a text: whole words of whole sentences.

    Args:
      number: how many; there may be fewer that will do.
      max_length: tokens in a row, special ones included.
    """
    bounds = np.linspace(0, len(corpus.sentences) - 1, number + 1).astype(int)
    found = []
    for start, end in itertools.pairwise(bounds.tolist()):
        for sentence in range(start, min(end, start + _LOOKED_AT)):
            ids = sentence_ids(corpus, sentence)
            places = whole_words(ids, tokenizer)
            if _FEWEST <= len(ids) <= longest_sentence(max_length) and places:
                found.append(Place(ids, places[random_below(len(places), random_bits(0, sentence)).item()]))
                break
    return found


def sentence_ids(corpus: Corpus, number: int) -> np.ndarray:
    """Returns the token ids of a sentence of a text, int32 [t]."""
    return np.asarray(corpus.ids[slice(*corpus.sentences[number : number + 2])], np.int32)


def longest_sentence(max_length: int) -> int:
    """Returns the tokens that a sentence may have to be looked at, where a row has `max_length` with special ones."""
    return min(max_length, _LONGEST) - 2


def whole_words(ids: np.ndarray, tokenizer: Tokenizer) -> list[int]:
    """Returns the places of the words that are one token each; no punctuation."""
    vocabulary = tokenizer.vocabulary
    goes_on = [False, *(number in vocabulary.continuing for number in ids[1:].tolist()), False]
    return [
        place
        for place, (number, token) in enumerate(zip(ids.tolist(), tokenizer.words(ids), strict=True))
        if number not in vocabulary.special
        and not (goes_on[place] or goes_on[place + 1])
        and any(map(str.isalnum, token))
    ]


class Look:
    """A trained model, to look at words with. All processes of a run take part.

    Args:
      params: over the mesh.
      max_length: tokens in a row, special ones included.
    """

    def __init__(self, model: Bert, params: dict[str, Any], mesh: Mesh, tokenizer: Tokenizer, *, max_length: int):
        self.model, self.params, self.mesh, self.tokenizer = model, params, mesh, tokenizer
        self.max_length = min(max_length, _LONGEST)

    def guesses(self, hidden: Sequence[Place]) -> list[list[Guess]]:
        """Returns the likeliest words in the place of each, which is hidden, best first."""
        return [
            list(map(Guess, self.tokenizer.words(ids_g), shares_g.tolist()))
            for ids_g, shares_g, _ in self._seen(hidden, masked=True)
        ]

    def vectors(self, places: Sequence[Place]) -> np.ndarray:
        """Returns the representation of each word, where it is read, float32 [n, d]."""
        found = [vector_d for _, _, vector_d in self._seen(places, masked=False)]
        return np.stack(found) if found else np.zeros((0, self.model.config.hidden_size), np.float32)

    def attention(self, ids: np.ndarray) -> np.ndarray:
        """Returns what each token of `<cls> sentence <sep>` looks at, by layer and head, float32 [l, h, t, t]."""
        rows = self._rows([Place(ids, 0)], masked=False, length=len(ids) + 2, at_least=1)
        weights_lbhts = _compile_attention(self.model, self.mesh)(self.params, rows[:4])
        return np.asarray(jax.device_get(weights_lbhts))[:, 0]

    def _seen(self, places: Sequence[Place], *, masked: bool) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each place the likeliest ids, their probabilities, and the representation."""
        look, found = _compile_look(self.model, self.mesh), []
        for start in range(0, len(places), _ROWS):
            some = places[start : start + _ROWS]
            rows = self._rows(some, masked=masked, length=self.max_length, at_least=_ROWS)
            seen = jax.device_get(look(self.params, place_batch(rows, self.mesh)))
            found += list(zip(*seen, strict=True))[: len(some)]
        return found

    def _rows(self, places: Sequence[Place], *, masked: bool, length: int, at_least: int) -> "_Rows":
        """`<cls> sentence <sep>`, one a row, and rows of padding."""
        vocabulary, b = self.tokenizer.vocabulary, max(at_least, len(places))
        tokens_bt, present_bt = (np.zeros((b, length), np.int32) for _ in range(2))
        places_b = np.zeros(b, np.int32)
        for row, (ids, place) in enumerate(places):
            tokens_bt[row, : len(ids) + 2] = [vocabulary.cls, *ids, vocabulary.sep]
            present_bt[row, : len(ids) + 2] = 1
            places_b[row] = place + 1
            if masked:
                assert vocabulary.mask is not None
                tokens_bt[row, place + 1] = vocabulary.mask
        positions_bt = np.arange(length, dtype=np.int32) * present_bt
        return _Rows(tokens_bt, np.zeros_like(tokens_bt), positions_bt, present_bt, places_b)


class _Rows(NamedTuple):
    tokens_bt: np.ndarray
    segments_bt: np.ndarray
    positions_bt: np.ndarray
    sequences_bt: np.ndarray
    places_b: np.ndarray


@functools.cache
def _compile_look(model: Bert, mesh: Mesh) -> Callable[[dict[str, Any], _Rows], tuple[Array, Array, Array]]:
    return jax.jit(
        functools.partial(_look, model.clone(mesh=mesh)),
        in_shardings=(by_name(params_template(model), mesh), by_rows(mesh)),
        out_shardings=replicated(mesh),
    )


def _look(model: Bert, params: dict[str, Any], rows: _Rows) -> tuple[Array, Array, Array]:
    variables = {"params": gathered_outside_layers(params, model.mesh)}
    encoded_btd = model.apply(variables, *rows[:4], method="encode")
    encoded_bd = encoded_btd[np.arange(len(rows.places_b)), rows.places_b]
    shares_bg, ids_bg = jax.lax.top_k(jax.nn.softmax(model.apply(variables, encoded_bd, method="words")), GUESSES)
    return ids_bg, shares_bg, encoded_bd


@functools.cache
def _compile_attention(model: Bert, mesh: Mesh) -> Callable[[dict[str, Any], tuple[Any, ...]], Array]:
    def weights(params: dict[str, Any], row_1t: tuple[Array, ...]) -> Array:
        found: Array = model.clone(mesh=None).apply({"params": params}, *row_1t, method="attention_weights")
        return found

    # One row, so every device has it, and XLA fetches of the parameters what it needs.
    return jax.jit(
        weights,
        in_shardings=(by_name(params_template(model), mesh), replicated(mesh)),
        out_shardings=replicated(mesh),
    )
