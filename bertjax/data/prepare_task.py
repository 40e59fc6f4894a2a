"""Preparation of fine-tuning: labelled examples are read, some held out, and batches are drawn from them."""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from bertjax.config import Config
from bertjax.data.batching.labelled import LabelledBatches
from bertjax.data.examples import Examples, Row, check_labels, labels_of, make_examples, named, read_rows, split
from bertjax.data.prepare import as_read, read_tokenizer
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

_logger = logging.getLogger(__name__)

_SHOWN = 5  # labels that a line names


class PreparedTask(NamedTuple):
    """The vocabulary, labels, examples and batches of a run."""

    config: Config  # with the steps that its epochs come to, and the rules of the vocabulary
    tokenizer: Tokenizer
    labels: list[str]  # the number of a label is its place
    train: Examples
    held_out: Examples
    train_batches: LabelledBatches
    held_out_batches: LabelledBatches

    def told(self) -> dict[str, Any]:
        """Returns what a run's environment.json tells of its examples."""

        def described(examples: Examples) -> dict[str, Any]:
            counts = Counter(self.labels[number] for number in examples.labels_n.tolist())
            told = {"name": examples.name, "digest": examples.digest, "examples": len(examples.labels_n)}
            return told | {"tokens": examples.ids.size, "labels": dict(sorted(counts.items()))}

        return {"source": "examples", "train": described(self.train), "held_out": described(self.held_out)}

    def files(self) -> dict[str, bytes]:
        """Returns the labels, as a run keeps them."""
        return {"labels.json": (json.dumps(self.labels, ensure_ascii=False, indent=1) + "\n").encode()}

    @property
    def class_weights(self) -> list[float] | None:
        """What an example of each label counts for in training: one over its label's share, over the labels' number."""
        if self.config.task.class_weights == "none":
            return None
        counts = Counter(self.train.labels_n.tolist())
        return [len(self.train.labels_n) / len(self.labels) / counts[number] for number in range(len(self.labels))]


def prepare_task(config: Config, tokenizer: Tokenizer | None = None) -> PreparedTask:
    """Reads the examples, and holds out those of task.eval, or a share.

    Args:
      config: with the model that the run starts from.
      tokenizer: that of a run that has begun.

    Raises:
      BertjaxError: there is no model to start from; or the examples cannot be had, have one label, or other labels in
        task.eval than in task.train.
    """
    task = config.task
    if config.init_from is None:
        raise BertjaxError("there is no model to fine-tune; give --init_from a folder, of a run or from Hugging Face")
    if task.train is None:
        raise BertjaxError("there are no examples to learn from; give --task.train a file, such as train.csv")
    if config.train.batch_warmup_steps:
        raise BertjaxError(
            f"train.batch_warmup_steps={config.train.batch_warmup_steps} is of pretraining alone; leave it out"
        )
    rows = read_rows(task, task.train, "task.train")
    labels = labels_of(rows)
    if task.eval is None:
        rows, held_out, name = (
            *split(rows, task.eval_share, config.split_seed),
            f"held-out share of {named(task.train)}",
        )
        if not held_out:
            raise BertjaxError(
                f"of {len(rows):,} rows task.eval_share={task.eval_share} holds none out; give a greater one, more "
                "rows, or --task.eval a file"
            )
    else:
        held_out, name = read_rows(task, task.eval, "task.eval"), named(task.eval)
        check_labels(held_out, labels)
    _tell_of_rare(rows, labels)
    tokenizer = read_tokenizer(config.init_from, masks=False) if tokenizer is None else tokenizer
    config = dataclasses.replace(config, tokenizer=as_read(config.tokenizer, tokenizer.rules))

    def examples(rows: Sequence[Row], name: str) -> Examples:
        return make_examples(rows, labels, tokenizer, max_length=config.data.max_length, name=name)

    train, of_eval = examples(rows, named(task.train)), examples(held_out, name)
    row_length, batch_size = config.data.row_length, config.train.batch_size
    batches = LabelledBatches(train, batch_size=batch_size, row_length=row_length, seed=config.seed)
    # Evaluation needs no more memory at once than a part of a batch does in training.
    at_once = batch_size // config.train.gradient_accumulation_steps
    of_held_out = LabelledBatches(of_eval, batch_size=at_once, row_length=row_length, seed=config.seed)
    config = config.with_epochs(batches.steps_in_epoch)
    return PreparedTask(config, tokenizer, labels, train, of_eval, batches, of_held_out)


def prepare_examples(config: Config, labels: Sequence[str], tokenizer: Tokenizer, path: str | None) -> Examples:
    """Reads the examples that a run held out, or others of the same labels.

    Args:
      config: the run's.
      path: of the others.

    Raises:
      BertjaxError: they cannot be had, or have other labels.
    """
    task, name = config.task, ""
    if path is not None or task.eval is not None:
        there = path or task.eval or ""
        rows, name = read_rows(task, there, "task.eval"), named(there)
    else:
        assert task.train is not None
        rows = split(read_rows(task, task.train, "task.train"), task.eval_share, config.split_seed)[1]
        name = f"held-out share of {named(task.train)}"
    check_labels(rows, labels)
    return make_examples(rows, labels, tokenizer, max_length=config.data.max_length, name=name)


def describe_task(prepared: PreparedTask) -> str:
    """Returns a line for what is learned from, one for what is held out, and one for the labels."""
    lines = []
    for role, examples, batches in (
        ("train:", prepared.train, prepared.train_batches),
        ("held out:", prepared.held_out, prepared.held_out_batches),
    ):
        lines.append(
            f"{role:<10}{examples.name}: {batches.num_sequences:,} examples, {examples.ids.size:,} tokens, "
            f"{batches.num_rows:,} rows of {batches.row_length} a step, {batches.fill:.1%} full"
        )
    counts = Counter(prepared.train.labels_n.tolist())
    some = [f"{label} ({counts[number]:,})" for number, label in enumerate(prepared.labels[:_SHOWN])]
    more = f" and {len(prepared.labels) - _SHOWN:,} more" if len(prepared.labels) > _SHOWN else ""
    lines.append(f"labels:   {', '.join(some)}{more}")
    return "\n".join(lines)


def _tell_of_rare(rows: Sequence[Row], labels: Sequence[str]) -> None:
    counts = Counter(row.label for row in rows)
    if rare := [label for label in labels if counts[label] == 1]:
        some = ", ".join(map(repr, rare[:_SHOWN])) + (", ..." if len(rare) > _SHOWN else "")
        _logger.warning(f"{len(rare):,} labels have one example each to learn from, which teaches little: {some}")
