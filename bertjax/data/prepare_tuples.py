"""The rows that a run learns embeddings from, and those that it holds out."""

from bertjax.config import Config
from bertjax.data.examples import named
from bertjax.data.tuples import TupleRow, read_tuples, split_tuples
from bertjax.errors import BertjaxError


def tuple_rows(config: Config) -> tuple[list[TupleRow], list[TupleRow], str]:
    """Returns the rows to learn from, those that are held out, and what messages call the latter.

    Raises:
      BertjaxError: they cannot be had, or none is left on one side.
    """
    task = config.task
    if config.init_from is None:
        raise BertjaxError("there is no model to fine-tune; give --init_from a folder, of a run or from Hugging Face")
    if task.train is None:
        raise BertjaxError("there are no examples to learn from; give --task.train a file, such as pairs.csv")
    if config.train.batch_warmup_steps:
        raise BertjaxError(
            f"train.batch_warmup_steps={config.train.batch_warmup_steps} is of pretraining alone; leave it out"
        )
    rows = read_tuples(task, task.train, "task.train")
    if task.eval is not None:
        return rows, read_tuples(task, task.eval, "task.eval"), named(task.eval)
    learned, held_out = split_tuples(rows, task.eval_share, config.split_seed)
    if not held_out or not learned:
        raise BertjaxError(
            f"of {len(rows):,} rows task.eval_share={task.eval_share} holds {len(held_out):,} out, as rows with a text "
            "in common stay together; give another share, more rows, or --task.eval a file"
        )
    return learned, held_out, f"held-out share of {named(task.train)}"


def held_out_tuples(config: Config, path: str | None) -> tuple[list[TupleRow], str]:
    """Reads the rows that a run held out, or others, and returns them with their name.

    Args:
      config: the run's.
      path: of the others.

    Raises:
      BertjaxError: they cannot be had.
    """
    if (there := path or config.task.eval) is not None:
        return read_tuples(config.task, there, "task.eval"), named(there)
    return tuple_rows(config)[1:]
