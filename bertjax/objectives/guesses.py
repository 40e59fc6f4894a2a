"""Guesses: a few words of the held-out text are hidden from the model, and it says which are likeliest."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from bertjax.data.batching.batch import Batch
from bertjax.data.batching.random import random_below, random_bits
from bertjax.data.prepare import Prepared
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.models.bert import Bert, params_template
from bertjax.objectives.pretraining import apply_heads
from bertjax.ops.matmul import matmul
from bertjax.parallel.sharding import by_name, by_rows, place_batch, replicated

_SHOWN, GUESSES = 5, 3
_FEWEST = 6  # words of a sentence that tell something about the one that is hidden
_LOOKED_AT = 1000  # sentences, for one that will do


class Hidden(NamedTuple):
    """A word of a sentence, hidden from the model."""

    ids: np.ndarray  # the sentence's
    place: int


class Guess(NamedTuple):
    """A word for a hidden one."""

    word: str
    probability: float


def hide_words(prepared: Prepared) -> list[Hidden]:
    """Hides a few words, always the same, from all over the held-out text: whole words of whole sentences."""
    corpus, config = prepared.held_out, prepared.config
    bounds = np.linspace(0, len(corpus.sentences) - 1, _SHOWN + 1).astype(int)
    found = []
    for start, end in itertools.pairwise(bounds.tolist()):
        for number in range(start, min(end, start + _LOOKED_AT)):
            ids = np.asarray(corpus.ids[slice(*corpus.sentences[number : number + 2])], np.int32)
            places = _whole_words(ids, prepared.tokenizer)
            if _FEWEST <= len(ids) <= config.data.max_length - 2 and places:
                found.append(Hidden(ids, places[random_below(len(places), random_bits(0, number)).item()]))
                break
    return found


def _whole_words(ids: np.ndarray, tokenizer: Tokenizer) -> list[int]:
    """The places of those that are one token each; no punctuation."""
    vocabulary = tokenizer.vocabulary
    goes_on = [number in vocabulary.continuing for number in ids.tolist()] + [False]
    return [
        place
        for place, (number, token) in enumerate(zip(ids.tolist(), tokenizer.tokens(ids), strict=True))
        if number not in vocabulary.special
        and not (goes_on[place] or goes_on[place + 1])
        and any(map(str.isalnum, token))
    ]


def guess(
    hidden: list[Hidden], model: Bert, params: dict[str, Any], mesh: Mesh, tokenizer: Tokenizer, *, max_length: int
) -> list[list[Guess]]:
    """Returns the likeliest words for each that is hidden, best first. All processes of a run take part.

    Args:
      params: over the mesh.
      max_length: tokens in a row, special ones included.
    """
    if not hidden:
        return []
    batch = place_batch(_batch(hidden, tokenizer, max_length), mesh)
    shares_bg, ids_bg = jax.device_get(_compile_likeliest(model, mesh)(params, batch))
    return [
        list(map(Guess, tokenizer.tokens(ids_g), shares_g.tolist()))
        for ids_g, shares_g in zip(ids_bg[: len(hidden)], shares_bg, strict=False)
    ]


@functools.cache
def _compile_likeliest(model: Bert, mesh: Mesh) -> Callable[[dict[str, Any], Batch], tuple[Array, Array]]:
    return jax.jit(
        functools.partial(_likeliest, model.clone(mesh=mesh)),
        in_shardings=(by_name(params_template(model), mesh), by_rows(mesh)),
        out_shardings=replicated(mesh),
    )


def _likeliest(model: Bert, params: dict[str, Any], batch: Batch) -> tuple[Array, Array]:
    predictions = apply_heads(model, params, batch)
    logits_bv = matmul(predictions.mlm_hidden_bpd[:, 0], predictions.vocab_kernel_dv, model.dtype)
    logits_bv = logits_bv.astype(jnp.float32) + predictions.vocab_bias_v[None]
    return jax.lax.top_k(jax.nn.softmax(logits_bv), GUESSES)


def _batch(hidden: list[Hidden], tokenizer: Tokenizer, max_length: int) -> Batch:
    """`<cls> sentence <sep>`, one a row."""
    special, b = tokenizer.vocabulary, len(hidden)
    assert special.mask is not None
    tokens_bt, present_bt = (np.zeros((b, max_length), np.int32) for _ in range(2))
    for row, (ids, place) in enumerate(hidden):
        tokens_bt[row, : len(ids) + 2] = [special.cls, *ids, special.sep]
        tokens_bt[row, place + 1] = special.mask
        present_bt[row, : len(ids) + 2] = 1
    return Batch(
        tokens_bt=tokens_bt,
        segments_bt=np.zeros_like(tokens_bt),
        positions_bt=np.arange(max_length, dtype=np.int32) * present_bt,
        sequences_bt=present_bt,
        mlm_positions_bp=np.array([[place + 1] for _, place in hidden], np.int32),
        mlm_labels_bp=np.array([[ids[place]] for ids, place in hidden], np.int32),
        mlm_weights_bp=np.ones((b, 1), np.float32),
        cls_positions_bk=np.zeros((b, 1), np.int32),
        nsp_labels_bk=np.zeros((b, 1), np.int32),
        nsp_weights_bk=np.zeros((b, 1), np.float32),
    )
