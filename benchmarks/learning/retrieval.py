"""Does contrastive tuning of a pretrained model lift how well a sentence finds the one that follows it?

Pairs are sentences that follow each other inside a paragraph of the recipe's text, each in one pair at most: those of
one split are learned from, those of the other held out. Beside the tuned model stand the pretrained one, by the mean of
its tokens' vectors, and words in common, weighed by how rare they are.
"""

import collections
import csv
import dataclasses
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.config import Config, DataConfig, Split
from bertjax.data.sources.open_source import open_source
from bertjax.errors import BertjaxError
from bertjax.evaluation.retrieval import ranks_of, retrieval_figures
from bertjax.evaluation.task import evaluate_task
from bertjax.inference.encoder import Encoder
from bertjax.storage.cache import cache_folder
from bertjax.train.finetune import finetune

Pair = tuple[str, str]


def next_sentences(data: DataConfig, split: Split, *, least: int = 5) -> list[Pair]:
    """Returns pairs of a sentence and the next one of its paragraph; no sentence is in two.

    Args:
      data: names the text.
      least: words that each of the two has at least.
    """
    source = open_source(data, [split], cache_folder()).source

    def pairs() -> Iterator[Pair]:
        for document in source.documents(split):
            for paragraph in document:
                for first, second in zip(paragraph[::2], paragraph[1::2], strict=False):
                    if min(len(first.split()), len(second.split())) >= least:
                        yield first, second

    return list(dict.fromkeys(pairs()))


def compare(config: Config, seeds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns figures of words in common, of the model that is started from, and of it tuned with each seed.

    Args:
      config: of a run that learns embeddings, but for its files.
      seeds: runs, from the configuration's seed on.

    Raises:
      BertjaxError: there is no model, no text, or one without pairs.
    """
    if config.init_from is None:
        raise BertjaxError("there is no model to tune; give --init_from a run of 'bertjax pretrain'")
    learned, held_out = (
        next_sentences(config.data, split) for split in (config.data.train_split, config.data.eval_split)
    )
    if not learned or not held_out:
        raise BertjaxError("the text has no paragraphs of two sentences and more; give another as data.path")
    told: dict[str, Any] = {"trial": "retrieval", "learned": len(learned), "held_out": len(held_out)}
    texts_nr, texts = _numbered(held_out)
    say(f"{len(held_out):,} pairs held out: words in common, then {config.init_from}")
    told["words in common"] = _figures(_weighed_words(texts), texts_nr)
    before = Encoder.load(config.init_from).encode(texts, pooling="mean", truncate=True)
    told["before"] = _figures(before, texts_nr)
    with tempfile.TemporaryDirectory(prefix="bertjax-retrieval-") as name:
        folder = Path(name)
        for part, pairs in (("learned", learned), ("held_out", held_out)):
            with open(folder / f"{part}.csv", "w", newline="", encoding="utf-8") as opened:
                csv.writer(opened).writerows([("text", "pair"), *pairs])
        task = dataclasses.replace(config.task, train=str(folder / "learned.csv"), eval=str(folder / "held_out.csv"))
        config = dataclasses.replace(config, task=task)
        told["after"] = []
        for seed in range(config.seed, config.seed + seeds):
            say(f"seed {seed}: {len(learned):,} pairs to learn from")
            run = finetune(dataclasses.replace(config, seed=seed, run_dir=str(folder / f"run{seed}")))
            figures = evaluate_task(run).figures
            told["after"].append({name: figure.value for name, figure in figures.items()})
    return told


def render(told: dict[str, Any]) -> str:
    """Returns a table in Markdown: a line for each way to make vectors."""
    names = list(told["before"])
    lines = [f"| {told['held_out']:,} sentences held out | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for way in ("words in common", "before"):
        lines.append(f"| {way} | {' | '.join(f'{told[way][name]:.3f}' for name in names)} |")
    cells = []
    for name in names:
        values = [figures[name] for figures in told["after"]]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.3f}{spread}")
    return "\n".join([*lines, f"| after {told['learned']:,} pairs, {len(told['after'])} seeds | {' | '.join(cells)} |"])


def _numbered(pairs: Sequence[Pair]) -> tuple[np.ndarray, list[str]]:
    """Returns the number of each text of the pairs, int [n, 2], and the texts."""
    numbers: dict[str, int] = {}
    texts_nr = np.array([[numbers.setdefault(text, len(numbers)) for text in pair] for pair in pairs])
    return texts_nr, list(numbers)


def _weighed_words(texts: Sequence[str]) -> np.ndarray:
    """Returns a vector of each text: how often it has each word, logarithmically, by how few texts have it (TF-IDF)."""
    counts = [collections.Counter(text.lower().split()) for text in texts]
    having = collections.Counter(word for count in counts for word in count)
    place = {word: number for number, word in enumerate(having)}
    vectors = np.zeros((len(texts), len(place)), np.float32)
    for row, count in zip(vectors, counts, strict=True):
        for word, often in count.items():
            row[place[word]] = (1 + math.log(often)) * math.log(len(texts) / having[word])
    return vectors


def _figures(vectors_me: np.ndarray, texts_nr: np.ndarray) -> dict[str, float]:
    unit_me = vectors_me / np.maximum(np.linalg.norm(vectors_me, axis=-1, keepdims=True), 1e-12)
    return {name: figure.value for name, figure in retrieval_figures(ranks_of(unit_me, texts_nr).ranks_n).items()}
