"""The examples that a run learns from and those that it holds out, whatever they are of."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from bertjax.config import Config
from bertjax.data.examples import named
from bertjax.data.sources.splits import find_held_out, find_split
from bertjax.errors import BertjaxError
from bertjax.storage.fetch import here

T = TypeVar("T")
Read = Callable[[str, str], list[T]]
"""Reads the examples of files, as `find_files` takes them; the second argument is the option that gave the path."""
Cut = Callable[[list[T], float, int], tuple[list[T], list[T]]]
"""Cuts a share off examples, by a seed: returns those to learn from, and those to hold out."""


class Sides(NamedTuple, Generic[T]):
    """Examples to learn from, and those that are held out, each with what messages call them."""

    train: list[T]
    held_out: list[T]
    train_name: str
    held_out_name: str


def both_sides(config: Config, read: Read[T], cut: Cut[T], *, what: str = "rows") -> Sides[T]:
    """Returns the examples of task.train, and those of task.eval, or a share.

    Of a folder of splits they are its train and validation split.

    Args:
      what: examples are called.

    Raises:
      BertjaxError: they cannot be had, or none is left on one side.
    """
    task, path = config.task, find_split(here(check_task(config)[1], config.data.cache), "train", "task.train")
    name, learned, there = named(path), read(path, "task.train"), _held_out_path(config)
    if there is not None:
        return Sides(learned, read(there, "task.eval"), name, named(there))
    some, held_out = cut(learned, task.eval_share, config.split_seed)
    if not some or not held_out:
        raise BertjaxError(
            f"of {len(learned):,} {what} task.eval_share={task.eval_share} holds {len(held_out):,} out, as those that "
            f"belong together stay together; give another share, more {what}, or --task.eval a file"
        )
    return Sides(some, held_out, name, f"held-out share of {name}")


def held_out_side(config: Config, path: str | None, read: Read[T], cut: Cut[T]) -> tuple[list[T], str]:
    """Reads the examples that a run held out, or others, and returns them with their name.

    Args:
      config: the run's.
      path: of the others.

    Raises:
      BertjaxError: they cannot be had.
    """
    if path is not None:
        path = find_split(here(path, config.data.cache), "validation", "task.eval")
        return read(path, "task.eval"), named(path)
    if (there := _held_out_path(config)) is not None:
        return read(there, "task.eval"), named(there)
    sides = both_sides(config, read, cut)
    return sides.held_out, sides.held_out_name


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


def _held_out_path(config: Config) -> str | None:
    """Returns where held-out examples of their own are; None where they are a share of task.train."""
    task, cache = config.task, config.data.cache
    if task.eval is not None:
        return find_split(here(task.eval, cache), "validation", "task.eval")
    return find_held_out(task.train and here(task.train, cache), "task.eval")
