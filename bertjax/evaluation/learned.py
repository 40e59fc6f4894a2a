"""What a run has learned, in plain terms: beside word frequencies alone, and by words hidden from it."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from bertjax.data.batching.batch import Batch
from bertjax.data.batching.random import random_below, random_bits
from bertjax.data.prepare import Prepared
from bertjax.data.statistics.frequencies import guessing_loss, label_counts, word_counts
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.models.bert import Bert, params_template
from bertjax.objectives.pretraining import apply_heads
from bertjax.ops.matmul import matmul
from bertjax.parallel.sharding import by_name, by_rows, place_batch, replicated
from bertjax.runs.metrics import figures

_SHOWN, _GUESSES = 5, 3
_FEWEST = 6  # words of a sentence that tell something about the one that is hidden
_LOOKED_AT = 1000  # sentences, for one that will do
_AROUND = 22  # characters shown on either side of a hidden word


def held_out_in_words(prepared: Prepared, evaluation: Mapping[str, float]) -> str:
    """A line: the MLM loss beside that of guessing by frequency, on the same predictions, and the rest beside a coin.

    Args:
      evaluation: a line of metrics.jsonl.
    """
    config, tokenizer = prepared.config, prepared.tokenizer
    guessing = guessing_loss(
        word_counts(prepared.train, tokenizer.vocab_size),
        label_counts(prepared.held_out_batches.first_epoch(), tokenizer.vocab_size),
        tokenizer.vocabulary,
        predict_unk=config.data.predict_unk,
    )
    mlm, *others = figures(evaluation, config.data.heads, prefix="held_out_")
    parts = [f"MLM loss {mlm.loss:.2f}, where word frequencies alone give {guessing:.2f}"]
    parts += [f"{name} accuracy {accuracy:.1%}, where a coin gives 50%" for name, _, accuracy in others]
    return f"held out: {'; '.join(parts)}"


class Hidden(NamedTuple):
    """A word of a sentence, hidden from the model."""

    ids: np.ndarray  # the sentence's
    place: int


class Guess(NamedTuple):
    word: str
    probability: float


def hidden_words(prepared: Prepared) -> list[Hidden]:
    """A few, always the same, from all over the held-out text: whole words of whole sentences."""
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
    special = {vocabulary.pad, vocabulary.unk, vocabulary.cls, vocabulary.sep, vocabulary.mask}
    goes_on = [number in vocabulary.continuing for number in ids.tolist()] + [False]
    return [
        place
        for place, (number, token) in enumerate(zip(ids.tolist(), tokenizer.tokens(ids), strict=True))
        if number not in special and not (goes_on[place] or goes_on[place + 1]) and any(map(str.isalnum, token))
    ]


def guess(
    hidden: list[Hidden], model: Bert, params: dict[str, Any], mesh: Mesh, tokenizer: Tokenizer, *, max_length: int
) -> list[list[Guess]]:
    """The likeliest words for each that is hidden, the likeliest first. All processes of a run take part."""
    if not hidden:
        return []
    batch = place_batch(_batch(hidden, tokenizer, max_length), mesh)
    likeliest = jax.jit(
        functools.partial(_likeliest, model.clone(mesh=mesh)),
        in_shardings=(by_name(params_template(model), mesh), by_rows(mesh)),
        out_shardings=replicated(mesh),
    )
    shares_bg, ids_bg = jax.device_get(likeliest(params, batch))
    return [
        list(map(Guess, tokenizer.tokens(ids_g), shares_g.tolist()))
        for ids_g, shares_g in zip(ids_bg[: len(hidden)], shares_bg, strict=False)
    ]


def _likeliest(model: Bert, params: dict[str, Any], batch: Batch) -> tuple[Array, Array]:
    predictions = apply_heads(model, params, batch)
    logits_bv = matmul(predictions.mlm_hidden_bpd[:, 0], predictions.vocab_kernel_dv, model.dtype)
    logits_bv = logits_bv.astype(jnp.float32) + predictions.vocab_bias_v[None]
    return jax.lax.top_k(jax.nn.softmax(logits_bv), _GUESSES)


def _batch(hidden: list[Hidden], tokenizer: Tokenizer, max_length: int) -> Batch:
    """`<cls> sentence <sep>`, one a row."""
    special, b = tokenizer.vocabulary, len(hidden)
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


def guesses_in_words(hidden: list[Hidden], guessed: list[list[Guess]], tokenizer: Tokenizer) -> list[str]:
    """A heading, and a line for each hidden word: whether it was found, what stood around it, and the guesses."""
    if not hidden:
        return []
    lines = [f"words hidden in sentences of the held-out text, and the model's {_GUESSES} likeliest guesses:"]
    around = [_around(tokenizer.tokens(ids), place) for ids, place in hidden]
    width = max(map(len, around), default=0)
    for (ids, place), text, guesses in zip(hidden, around, guessed, strict=True):
        found = "right" if guesses[0].word == tokenizer.tokens(ids)[place] else "wrong"
        words = "  ".join(f"{word} {probability:.0%}" for word, probability in guesses)
        lines.append(f"  {found}  {text:<{width}}  {words}")
    return lines


def _around(tokens: list[str], place: int) -> str:
    """Such as "... crane is [flying] over the ..."."""
    after = _whole(tokens[place + 1 :])
    before = _whole(tokens[:place])
    left = [*_that_fit(reversed(before))][::-1]
    right = [*_that_fit(after)]
    left = left if len(left) == len(before) else ["...", *left]
    right = right if len(right) == len(after) else [*right, "..."]
    return " ".join([*left, f"[{tokens[place]}]", *right])


def _whole(tokens: list[str]) -> list[str]:
    """Words of the pieces that they were cut in."""
    return " ".join(tokens).replace(" ##", "").split()


def _that_fit(words: Iterable[str]) -> Iterator[str]:
    room = _AROUND
    for word in words:
        room -= len(word) + 1
        if room < 0:
            return
        yield word
