"""Useful operations: what the matrix products of real tokens need, and nothing else.

A product of [m, k] by [k, n] counts 2 * m * k * n. Not counted: padding, empty prediction slots, embeddings, norms,
activations, dropout, the optimiser, whatever is computed twice.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertjax.config import BertConfig
from bertjax.data.batching.batch import Batch

# The gradient of a product is two products of its size: by the weights for what is below, by the input for the weights.
FORWARD_AND_BACKWARD = 3


def encoder_operations(
    lengths: np.ndarray,
    *,
    hidden: int,
    layers: int,
    intermediate: int,
    embedding: int | None = None,
    windows: Sequence[int] = (),
    disentangled: bool = False,
) -> int:
    """Counts the forward pass of the encoder: linear layers, and attention inside each sequence.

    Args:
      lengths: tokens in each sequence.
      hidden: features of a token.
      intermediate: features inside a feed-forward layer.
      embedding: features of a token's embedding, where a linear layer makes `hidden` of them.
      windows: of each layer with local attention, tokens to either side that a token sees.
      disentangled: whether a pair of tokens has two products more, of content with position and the other way round (He
        et al. 2020, "DeBERTa", section 3.1); what positions pass through is small beside batches, and not counted.
    """
    lengths = np.asarray(lengths, np.int64)
    tokens = int(lengths.sum())
    linear = 2 * tokens * (4 * hidden * hidden + 2 * hidden * intermediate)
    pairs_of_tokens = (layers - len(windows)) * _pairs_of_tokens(lengths, None)
    pairs_of_tokens += sum(_pairs_of_tokens(lengths, window) for window in windows)
    attention = 2 * pairs_of_tokens * (4 if disentangled else 2) * hidden
    return layers * linear + attention + 2 * tokens * (embedding or 0) * hidden


def _pairs_of_tokens(lengths: np.ndarray, window: int | None) -> int:
    """Counts which tokens see which, in one layer."""
    if window is None:
        return int((lengths**2).sum())
    farthest = np.minimum(window, lengths - 1)
    return int((lengths + 2 * farthest * lengths - farthest * (farthest + 1)).sum())


def head_operations(predictions: int, pairs: int, *, hidden: int, vocabulary: int, embedding: int | None = None) -> int:
    """Counts the forward pass of the MLM head, at real predictions, and of pooler and NSP head, for each pair.

    Args:
      hidden: features of a token.
      vocabulary: words that the MLM head chooses from.
      embedding: features of a word; by default as many as of a token.
    """
    embedding = embedding or hidden
    return 2 * predictions * (hidden * embedding + embedding * vocabulary) + 2 * pairs * (hidden * hidden + 2 * hidden)


def training_operations(model: BertConfig, batch: Any) -> int:
    """Counts a training step on this batch, forward and backward; heads other than pretraining's are next to nothing.

    Args:
      batch: of pretraining, or another with `sequences_bt`.
    """
    assert model.vocab_size is not None
    encoder = encoder_operations(sequence_lengths(batch.sequences_bt), **_sizes(model))
    if not isinstance(batch, Batch):
        return FORWARD_AND_BACKWARD * encoder
    predictions, pairs = int(batch.mlm_weights_bp.sum()), int(batch.nsp_weights_bk.sum())
    sizes = {"hidden": model.hidden_size, "embedding": model.embedding_width, "vocabulary": model.vocab_size}
    heads = head_operations(predictions, pairs, **sizes)
    return FORWARD_AND_BACKWARD * (encoder + heads)


def _sizes(model: BertConfig) -> dict[str, Any]:
    """Returns what the encoder's operations depend on.

    A gate is a third matrix of a feed-forward layer: half as many features again in two.
    """
    gated = model.hidden_act in ("geglu", "swiglu")
    intermediate = 3 * model.intermediate_size // 2 if gated else model.intermediate_size
    seen = [model.window_of(layer) for layer in range(model.num_layers)]
    return {
        "hidden": model.hidden_size,
        "layers": model.num_layers,
        "intermediate": intermediate,
        "embedding": model.embedding_size,
        "windows": [window for window in seen if window is not None],
        "disentangled": model.positions == "disentangled",
    }


def sequence_lengths(sequences_bt: np.ndarray) -> np.ndarray:
    """Counts the tokens in each sequence of each row.

    Args:
      sequences_bt: which of the row's sequences a token belongs to, 1 or more; 0 is padding.
    """
    rows, most = len(sequences_bt), int(sequences_bt.max()) + 1
    keys_bt = np.arange(rows)[:, None] * most + sequences_bt
    lengths = np.bincount(keys_bt.ravel(), minlength=rows * most).reshape(rows, most)[:, 1:]
    return lengths[lengths > 0]


def training_figures(model: BertConfig, measured: list[Batch], seconds: list[float]) -> dict[str, Any]:
    """Returns what a training contender reports, ours and every peer alike: rates a second, and a step's seconds.

    Args:
      measured: the batches it was timed on, and perhaps more.
      seconds: that each step took.
    """
    total, steps = sum(seconds), len(seconds)
    measured = measured[:steps]
    return {
        "pairs_per_second": sum(sequence_lengths(batch.sequences_bt).size for batch in measured) / total,
        "tokens_per_second": sum(int((batch.sequences_bt > 0).sum()) for batch in measured) / total,
        "step_seconds": statistics.median(seconds),
        "useful_flops": sum(training_operations(model, batch) for batch in measured) / total,
    }


def encoding_figures(model: BertConfig, lengths: np.ndarray, seconds: float) -> dict[str, Any]:
    """Returns what an encoding contender reports: rates a second.

    Args:
      lengths: tokens in each text, special ones included.
      seconds: that all took.
    """
    operations = encoder_operations(lengths, **_sizes(model))
    return {
        "tokens_per_second": int(lengths.sum()) / seconds,
        "texts_per_second": len(lengths) / seconds,
        "useful_flops": operations / seconds,
    }
