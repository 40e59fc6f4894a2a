"""Preparation of fine-tuning: labelled examples are read, some held out, and batches are drawn from them."""

import dataclasses
import logging
from typing import Any, NamedTuple

from bertjax.config import Config
from bertjax.data.batching.labelled import LabelledBatches
from bertjax.data.examples import Examples, Row, make_examples, named, read_rows, split
from bertjax.data.prepare import as_read, read_tokenizer
from bertjax.data.reader import Item
from bertjax.data.targets import Labels, Targets, label_reader, learn_targets, rare_labels, to_json
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

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
    task, (init_from, path) = config.task, check_task(config)
    rows = read_rows(task, path, "task.train", label_reader(task))
    learn_targets(task, rows)  # raises where all have one label; of those to learn from alone it is made below
    if task.eval is None:
        rows, held_out = split(rows, task.eval_share, config.split_seed)
        name = f"held-out share of {named(path)}"
        if not held_out:
            raise BertjaxError(
                f"of {len(rows):,} rows task.eval_share={task.eval_share} holds none out; give a greater one, more "
                "rows, or --task.eval a file"
            )
    else:
        held_out, name = read_rows(task, task.eval, "task.eval", label_reader(task)), named(task.eval)
    targets = learn_targets(task, rows)
    labels_n, held_out_labels_n = targets.numbers(rows), targets.numbers(held_out)
    if rare := rare_labels(targets, labels_n):
        some = ", ".join(map(repr, rare[:_SHOWN])) + (", ..." if len(rare) > _SHOWN else "")
        _logger.warning(f"{len(rare):,} labels have one example each to learn from, which teaches little: {some}")
    tokenizer = read_tokenizer(init_from, masks=False) if tokenizer is None else tokenizer
    config = dataclasses.replace(config, tokenizer=as_read(config.tokenizer, tokenizer.rules))

    max_length = config.data.max_length
    train = make_examples(rows, labels_n, tokenizer, max_length=max_length, name=named(path))
    of_eval = make_examples(held_out, held_out_labels_n, tokenizer, max_length=max_length, name=name)
    row_length, batch_size = config.data.row_length, config.train.batch_size
    batches = LabelledBatches(train, batch_size=batch_size, row_length=row_length, seed=config.seed)
    # Evaluation needs no more memory at once than a part of a batch does in training.
    at_once = batch_size // config.train.gradient_accumulation_steps
    of_held_out = LabelledBatches(of_eval, batch_size=at_once, row_length=row_length, seed=config.seed)
    config = config.with_epochs(batches.steps_in_epoch)
    items = [row.item for row in held_out]
    return PreparedTask(config, tokenizer, targets, train, of_eval, batches, of_held_out, items)


def check_task(config: Config) -> tuple[str, str]:
    """Returns the folder to start from, and the path of the examples. Raises BertjaxError where one is not given."""
    if config.init_from is None:
        raise BertjaxError("there is no model to fine-tune; give --init_from a folder, of a run or from Hugging Face")
    if config.task.train is None:
        raise BertjaxError("there are no examples to learn from; give --task.train a file, such as train.csv")
    if config.train.batch_warmup_steps:
        raise BertjaxError(
            f"train.batch_warmup_steps={config.train.batch_warmup_steps} is of pretraining alone; leave it out"
        )
    return config.init_from, config.task.train


def held_out_rows(config: Config, path: str | None) -> tuple[list[Row], str]:
    """Reads the rows that a run held out, or others, and returns them with their name.

    Args:
      config: the run's.
      path: of the others.

    Raises:
      BertjaxError: they cannot be had.
    """
    task, read_label = config.task, label_reader(config.task)
    if path is not None or task.eval is not None:
        there = path or task.eval or ""
        return read_rows(task, there, "task.eval", read_label), named(there)
    assert task.train is not None
    rows = split(read_rows(task, task.train, "task.train", read_label), task.eval_share, config.split_seed)[1]
    return rows, f"held-out share of {named(task.train)}"


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
