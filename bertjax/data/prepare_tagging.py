"""Preparation of tagging: sentences with tags are read, some held out, and batches are drawn from them."""

import dataclasses
import functools
import logging
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import Config
from bertjax.data.batching.tagged import TaggedBatches
from bertjax.data.held_out import both_sides, check_task, held_out_side
from bertjax.data.prepare import as_read, read_tokenizer
from bertjax.data.tagged import (
    Sentence,
    TaggedExamples,
    check_tags,
    learn_tags,
    make_tagged,
    sorted_sentences,
    split_sentences,
)
from bertjax.data.tags import Tags
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

_logger = logging.getLogger(__name__)

_SHOWN = 5  # tags that a line names


class PreparedTagging(NamedTuple):
    """The vocabulary, tags, sentences and batches of a run."""

    config: Config  # with the steps that its epochs come to, and the rules of the vocabulary
    tokenizer: Tokenizer
    tags: Tags
    train: TaggedExamples
    held_out: TaggedExamples
    train_batches: TaggedBatches
    held_out_batches: TaggedBatches
    sentences: list[Sentence]  # those that are held out

    def told(self) -> dict[str, Any]:
        """Returns what a run's environment.json tells of its sentences."""

        def described(examples: TaggedExamples) -> dict[str, Any]:
            counts = np.bincount(examples.tags_w, minlength=len(self.tags.names)).tolist()
            told = {"name": examples.name, "digest": examples.digest, "examples": examples.num_sequences}
            told |= {"tokens": examples.ids.size, "words": examples.tags_w.size}
            return told | {"labels": {name: n for name, n in zip(self.tags.names, counts, strict=True) if n}}

        return {"source": "examples", "train": described(self.train), "held_out": described(self.held_out)}

    def files(self) -> dict[str, bytes]:
        """Returns the tags, as a run keeps them."""
        return {"labels.json": self.tags.to_json()}

    @property
    def class_weights(self) -> list[float] | None:
        """What a token of each tag counts for in training; None where all count 1."""
        if self.config.task.class_weights == "none":
            return None
        labels_m = self.train.labels_m[self.train.labels_m >= 0]
        counts = np.bincount(labels_m, minlength=len(self.tags.names)).tolist()
        return [len(labels_m) / len(counts) / max(1, count) for count in counts]


def prepare_tagging(config: Config, tokenizer: Tokenizer | None = None) -> PreparedTagging:
    """Reads the sentences, and holds out those of task.eval, or a share.

    Args:
      config: with the model that the run starts from.
      tokenizer: that of a run that has begun.

    Raises:
      BertjaxError: there is no model to start from; or the sentences cannot be had, have one tag, or other tags in
        task.eval than in task.train.
    """
    task, init_from = config.task, check_task(config)[0]
    read = functools.partial(sorted_sentences, task)
    sides = both_sides(config, read, split_sentences, what="sentences")
    sentences, held_out = sides.train, sides.held_out
    tags = learn_tags(sentences)
    check_tags(held_out, tags)
    tokenizer = read_tokenizer(init_from, masks=False) if tokenizer is None else tokenizer
    config = dataclasses.replace(config, tokenizer=as_read(config.tokenizer, tokenizer.rules))

    def examples(some: list[Sentence], name: str) -> TaggedExamples:
        how: Any = {"max_length": config.data.max_length, "label_pieces": task.label_pieces}
        return make_tagged(some, tags, tokenizer, name=name, **how)

    train, of_eval = examples(sentences, sides.train_name), examples(held_out, sides.held_out_name)
    if train.labels_m.max() < 0:
        raise BertjaxError(f"no word of {train.name} has characters that the vocabulary of {init_from} can read")
    batch_size, row_length = config.train.batch_size, config.data.row_length
    batches = TaggedBatches(train, batch_size=batch_size, row_length=row_length, seed=config.seed)
    # Evaluation needs no more memory at once than a part of a batch does in training.
    at_once = batch_size // config.train.parts
    of_held_out = TaggedBatches(of_eval, batch_size=at_once, row_length=row_length, seed=config.seed)
    _tell_of_rare(train, tags)
    config = config.with_epochs(batches.steps_in_epoch)
    return PreparedTagging(config, tokenizer, tags, train, of_eval, batches, of_held_out, held_out)


def held_out_sentences(config: Config, path: str | None) -> tuple[list[Sentence], str]:
    """Returns the sentences that a run held out, or others, with their name; as of `held_out_side`."""
    return held_out_side(config, path, functools.partial(sorted_sentences, config.task), split_sentences)


def describe_tagging(prepared: PreparedTagging) -> str:
    """Returns a line for what is learned from, one for what is held out, and one for the tags."""
    lines = []
    for role, examples, batches in (
        ("train:", prepared.train, prepared.train_batches),
        ("held out:", prepared.held_out, prepared.held_out_batches),
    ):
        lines.append(
            f"{role:<10}{examples.name}: {examples.num_sequences:,} sentences, {examples.tags_w.size:,} words, "
            f"{examples.ids.size:,} tokens, {batches.num_rows:,} rows of {batches.row_length} a step, "
            f"{batches.fill:.1%} full"
        )
    names, counts = prepared.tags.names, np.bincount(prepared.train.tags_w, minlength=len(prepared.tags.names))
    some = [f"{name} ({count:,})" for name, count in list(zip(names, counts.tolist(), strict=True))[:_SHOWN]]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    scheme = prepared.tags.scheme or "which mark no entities: each word counts by itself"
    lines.append(f"tags:     {', '.join(some)}{more}; {scheme}")
    return "\n".join(lines)


def _tell_of_rare(train: TaggedExamples, tags: Tags) -> None:
    counts = np.bincount(train.tags_w, minlength=len(tags.names)).tolist()
    if rare := [name for name, count in zip(tags.names, counts, strict=True) if count == 1]:
        some = ", ".join(map(repr, rare[:_SHOWN])) + (", ..." if len(rare) > _SHOWN else "")
        _logger.warning(f"{len(rare):,} tags have one word each to learn from, which teaches little: {some}")
