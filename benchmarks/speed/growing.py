"""One round of `python -m benchmarks growth`: seconds and operations at every size of every axis."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.ours import timed_steps
from benchmarks.speed.text import TRAIN, scaled, write_synthetic
from bertjax.config import Config
from bertjax.config.recipes import load_config
from bertjax.data.batching.batch import Batch
from bertjax.data.prepare import prepare
from bertjax.data.sources.wikitext_download import file_name
from bertjax.data.tokenizer.rules import MASK, NUM_SPECIAL
from bertjax.models.operations import training_operations

Points = dict[str, list[float]]  # "sizes", "seconds", "operations"


class FullBatches:
    """Rows without padding, so that a step's size is what it is said to be; `batch_at` as `Batches` has it.

    Args:
      lengths: tokens of the sequences that every row holds; by default one of data.max_length.
    """

    def __init__(self, config: Config, lengths: Sequence[int] | None = None):
        lengths = lengths or [config.data.max_length]
        rows, width = config.train.batch_size, sum(lengths)
        predictions = max(1, round(config.data.mlm_probability * width))
        assert config.model.vocab_size is not None
        random = np.random.default_rng(config.seed)
        tokens_bt = random.integers(NUM_SPECIAL, config.model.vocab_size, (rows, width), np.int32)
        positions_t = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
        sequences_t = np.repeat(np.arange(1, 1 + len(lengths), dtype=np.int32), lengths)
        second_t = positions_t >= np.repeat(lengths, lengths) // 2
        inside = np.flatnonzero(positions_t)  # not <cls>
        chosen_p = inside[np.linspace(0, len(inside) - 1, predictions).astype(int)].astype(np.int32)
        labels_bp = tokens_bt[:, chosen_p]
        tokens_bt[:, chosen_p] = MASK
        k = len(lengths)

        def everywhere(x: np.ndarray) -> np.ndarray:
            return np.broadcast_to(x, (rows, len(x)))

        self._batch = Batch(
            tokens_bt=tokens_bt,
            segments_bt=everywhere(second_t.astype(np.int32)),
            positions_bt=everywhere(positions_t),
            sequences_bt=everywhere(sequences_t),
            mlm_positions_bp=everywhere(chosen_p),
            mlm_labels_bp=labels_bp,
            mlm_weights_bp=np.ones((rows, predictions), np.float32),
            cls_positions_bk=everywhere(np.flatnonzero(positions_t == 0).astype(np.int32)),
            nsp_labels_bk=random.integers(0, 2, (rows, k), np.int32),
            nsp_weights_bk=np.ones((rows, k), np.float32),
        )

    def batch_at(self, step: int) -> Batch:
        return self._batch


def grow(*, config: str, axes: dict[str, list[float]], steps: int) -> dict[str, Points]:
    """Returns the points of every axis.

    Args:
      axes: sizes of "batch", "length", "layers", "hidden" and "corpus", the last in shares of WikiText-2.
      steps: timed at each size.
    """
    recipe = load_config(config)
    points: dict[str, Points] = {}
    for axis, sizes in axes.items():
        if axis == "corpus":
            points |= _grow_corpus(recipe, sizes)
        else:
            points[f"step, {axis}"] = _grow_step(recipe, axis, [int(size) for size in sizes], steps)
    return points


def _grow_step(recipe: Config, axis: str, sizes: list[int], steps: int) -> Points:
    resized = [_resized(recipe, axis, size) for size in sizes]
    batches = [FullBatches(config) for config in resized]
    return {
        "sizes": [float(size) for size in sizes],
        "seconds": [
            statistics.median(timed_steps(config, full, 1 + steps).seconds[1:])  # the first step compiles
            for config, full in zip(resized, batches, strict=True)
        ],
        "operations": [
            float(training_operations(config.model, full.batch_at(0)))
            for config, full in zip(resized, batches, strict=True)
        ],
    }


def _resized(recipe: Config, axis: str, size: int) -> Config:
    model, data, train = recipe.model, recipe.data, recipe.train
    match axis:
        case "batch":
            train = dataclasses.replace(train, batch_size=size)
        case "length":
            data = dataclasses.replace(data, max_length=size)
        case "layers":
            model = dataclasses.replace(model, num_layers=size)
        case "hidden":
            ratio = model.intermediate_size / model.hidden_size
            model = dataclasses.replace(model, hidden_size=size, intermediate_size=round(ratio * size))
        case _:
            raise ValueError(f"no axis {axis}")
    return dataclasses.replace(recipe, model=model, data=data, train=train)


def _grow_corpus(recipe: Config, shares: list[float]) -> dict[str, Points]:
    """Returns points of corpora: building grows with their words; a batch has as many pairs in any and should not."""
    words = [float(scaled(TRAIN, share).words) for share in shares]
    build_seconds, batch_seconds = [], []
    for share in shares:
        with tempfile.TemporaryDirectory() as folder:
            write_synthetic(Path(folder, file_name("train")), scaled(TRAIN, share))
            data = dataclasses.replace(
                recipe.data, source="wikitext-2", path=folder, cache=folder, train_split="train", eval_split="train"
            )
            start = time.perf_counter()
            batches = prepare(dataclasses.replace(recipe, data=data)).train_batches
            build_seconds.append(time.perf_counter() - start)
            batch_seconds.append(_batch_seconds(batches))
    return {
        "corpus built, words": {"sizes": words, "seconds": build_seconds, "operations": words},
        "batch made, words": {"sizes": words, "seconds": batch_seconds, "operations": [1.0] * len(words)},
    }


def _batch_seconds(batches: Any) -> float:
    """Returns the median seconds of a few batches, each of other pairs."""
    seconds = []
    for step in range(20):
        start = time.perf_counter()
        batches.batch_at(step)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
