"""Preparation of answering: questions are read, some held out, and batches of windows are drawn from them."""

import dataclasses
import functools
from typing import Any, NamedTuple

from bertjax.config import Config
from bertjax.data.batching.answers import AnswerBatches
from bertjax.data.held_out import both_sides, check_task, held_out_side
from bertjax.data.prepare import as_read, read_tokenizer
from bertjax.data.questions import Question, sorted_questions, split_questions
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.data.windows import AnswerExamples, make_windows


class PreparedAnswering(NamedTuple):
    """The vocabulary, questions, windows and batches of a run."""

    config: Config  # with the steps that its epochs come to, and the rules of the vocabulary
    tokenizer: Tokenizer
    train: AnswerExamples
    held_out: AnswerExamples
    train_batches: AnswerBatches
    held_out_batches: AnswerBatches
    num_unanswered: int  # questions to learn from that have no answer
    questions: list[Question]  # those that are held out

    def told(self) -> dict[str, Any]:
        """Returns what a run's environment.json tells of its questions."""

        def described(examples: AnswerExamples, unanswered: int) -> dict[str, Any]:
            told = {"name": examples.name, "digest": examples.digest, "examples": len(examples.read)}
            return told | {"windows": len(examples.len_a_n), "tokens": examples.ids.size, "unanswered": unanswered}

        unanswered = sum(not question.answers for question in self.questions)
        train, held_out = described(self.train, self.num_unanswered), described(self.held_out, unanswered)
        return {"source": "examples", "train": train, "held_out": held_out}

    def files(self) -> dict[str, bytes]:
        """Returns nothing: what a run of answers has to keep is known when it ends."""
        return {}


def prepare_answering(config: Config, tokenizer: Tokenizer | None = None) -> PreparedAnswering:
    """Reads the questions, and holds out those of task.eval, or a share.

    Args:
      config: with the model that the run starts from.
      tokenizer: that of a run that has begun.

    Raises:
      BertjaxError: there is no model to start from; or the questions cannot be had.
    """
    task, init_from = config.task, check_task(config)[0]
    read = functools.partial(sorted_questions, task)
    sides = both_sides(config, read, split_questions, what="questions")
    tokenizer = read_tokenizer(init_from, masks=False) if tokenizer is None else tokenizer
    config = dataclasses.replace(config, tokenizer=as_read(config.tokenizer, tokenizer.rules))
    windows = functools.partial(make_windows, max_length=config.data.max_length, stride=task.stride)
    train = windows(sides.train, tokenizer, name=sides.train_name)
    held_out = windows(sides.held_out, tokenizer, name=sides.held_out_name)
    batch_size, row_length = config.train.batch_size, config.data.row_length
    batches = AnswerBatches(train, batch_size=batch_size, row_length=row_length, seed=config.seed)
    # Evaluation needs no more memory at once than a part of a batch does in training.
    at_once = batch_size // config.train.parts
    of_held_out = AnswerBatches(held_out, batch_size=at_once, row_length=row_length, seed=config.seed)
    config = config.with_epochs(batches.steps_in_epoch)
    unanswered = sum(not question.answers for question in sides.train)
    return PreparedAnswering(config, tokenizer, train, held_out, batches, of_held_out, unanswered, sides.held_out)


def held_out_questions(config: Config, path: str | None) -> tuple[list[Question], str]:
    """Returns the questions that a run held out, or others, with their name; as of `held_out_side`."""
    return held_out_side(config, path, functools.partial(sorted_questions, config.task), split_questions)


def describe_answering(prepared: PreparedAnswering) -> str:
    """Returns a line for what is learned from, and one for what is held out."""
    told = prepared.told()
    return "\n".join(
        f"{role:<10}{examples.name}: {len(examples.read):,} questions, {told[side]['unanswered']:,} of them without an "
        f"answer, {batches.num_sequences:,} windows, {examples.ids.size:,} tokens, {batches.num_rows:,} rows of "
        f"{batches.row_length} a step, {batches.fill:.1%} full"
        for role, side, examples, batches in (
            ("train:", "train", prepared.train, prepared.train_batches),
            ("held out:", "held_out", prepared.held_out, prepared.held_out_batches),
        )
    )
