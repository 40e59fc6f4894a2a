"""Preparation of fine-tuning: labelled examples are read, some held out, and batches are drawn from them."""

import dataclasses
import functools
import logging
from typing import Any, NamedTuple

from bertjax.config import Config, TaskConfig
from bertjax.data.batching.labelled import LabelledBatches
from bertjax.data.examples import Examples, Row, make_examples, read_rows, split
from bertjax.data.held_out import both_sides, check_task, held_out_side
from bertjax.data.prepare import as_read, read_tokenizer
from bertjax.data.reader import Item
from bertjax.data.targets import Labels, Targets, label_reader, learn_targets, rare_labels, to_json
from bertjax.data.tokenizer.tokenizer import Tokenizer

_logger = logging.getLogger(__name__)

_SHOWN = 5  # labels that a line names


class PreparedTask(NamedTuple):
    """The vocabulary, targets, examples and batches of a run."""

    config: Config  # with the steps that its epochs come to, and the rules of the vocabulary
    tokenizer: Tokenizer
    targets: Targets  # what examples are labelled with
    train: Examples
    held_out: Examples
    train_batches: LabelledBatches
    held_out_batches: LabelledBatches
    items: list[Item]  # the texts of each that is held out

    def told(self) -> dict[str, Any]:
        """Returns what a run's environment.json tells of its examples."""

        def described(examples: Examples) -> dict[str, Any]:
            told = {"name": examples.name, "digest": examples.digest, "examples": len(examples.labels_n)}
            return told | {"tokens": examples.ids.size} | self.targets.told(examples.labels_n)

        return {"source": "examples", "train": described(self.train), "held_out": described(self.held_out)}

    def files(self) -> dict[str, bytes]:
        """Returns the targets, as a run keeps them."""
        return {"labels.json": to_json(self.targets)}

    @property
    def class_weights(self) -> list[float] | None:
        """What an example of each label counts for in training; None where all count 1."""
        if self.config.task.class_weights == "none":
            return None
        assert isinstance(self.targets, Labels)
        return self.targets.weights(self.train.labels_n)


def prepare_task(config: Config, tokenizer: Tokenizer | None = None) -> PreparedTask:
    """Reads the examples, and holds out those of task.eval, or a share.

    Args:
      config: with the model that the run starts from.
      tokenizer: that of a run that has begun.

    Raises:
      BertjaxError: there is no model to start from; or the examples cannot be had, have one label, or other labels in
        task.eval than in task.train.
    """
    task, init_from = config.task, check_task(config)[0]
    sides = both_sides(config, functools.partial(_read, task), split)
    rows, held_out = sides.train, sides.held_out
    targets = learn_targets(task, rows)
    labels_n, held_out_labels_n = targets.numbers(rows), targets.numbers(held_out)
    if rare := rare_labels(targets, labels_n):
        some = ", ".join(map(repr, rare[:_SHOWN])) + (", ..." if len(rare) > _SHOWN else "")
        _logger.warning(f"{len(rare):,} labels have one example each to learn from, which teaches little: {some}")
    tokenizer = read_tokenizer(init_from, masks=False) if tokenizer is None else tokenizer
    config = dataclasses.replace(config, tokenizer=as_read(config.tokenizer, tokenizer.rules))

    max_length = config.data.max_length
    train = make_examples(rows, labels_n, tokenizer, max_length=max_length, name=sides.train_name)
    of_eval = make_examples(held_out, held_out_labels_n, tokenizer, max_length=max_length, name=sides.held_out_name)
    row_length, batch_size = config.data.row_length, config.train.batch_size
    how: Any = {"row_length": row_length, "seed": config.seed}
    batches = LabelledBatches(train, batch_size=batch_size, balance=task.balance, **how)
    # Evaluation needs no more memory at once than a part of a batch does in training.
    at_once = batch_size // config.train.parts
    of_held_out = LabelledBatches(of_eval, batch_size=at_once, **how)
    config = config.with_epochs(batches.steps_in_epoch)
    items = [row.item for row in held_out]
    return PreparedTask(config, tokenizer, targets, train, of_eval, batches, of_held_out, items)


def _read(task: TaskConfig, path: str, key: str) -> list[Row]:
    """Reads rows. Raises BertjaxError where all those to learn from have one label, whatever is held out of them."""
    rows = read_rows(task, path, key, label_reader(task))
    if key == "task.train":
        learn_targets(task, rows)
    return rows


def held_out_rows(config: Config, path: str | None) -> tuple[list[Row], str]:
    """Returns the rows that a run held out, or others, with their name; as of `held_out_side`."""
    return held_out_side(config, path, functools.partial(_read, config.task), split)


def describe_task(prepared: PreparedTask) -> str:
    """Returns a line for what is learned from, one for what is held out, and one for the labels or numbers."""
    lines = []
    for role, examples, batches in (
        ("train:", prepared.train, prepared.train_batches),
        ("held out:", prepared.held_out, prepared.held_out_batches),
    ):
        lines.append(
            f"{role:<10}{examples.name}: {batches.num_sequences:,} examples, {examples.ids.size:,} tokens, "
            f"{batches.num_rows:,} rows of {batches.row_length} a step, {batches.fill:.1%} full"
        )
    lines.append(prepared.targets.described(prepared.train.labels_n))
    return "\n".join(lines)
