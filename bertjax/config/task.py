"""The task section: labelled examples, and what is learned of them when a model is fine-tuned."""

import dataclasses
from typing import Literal

from bertjax.config.checks import expand_homes, require, require_at_least, require_types


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Fine-tuning; examples are rows of tables or records, with columns by name"""

    kind: Literal["pretrain", "classify"] = "pretrain"
    """what a run learns: the text of the data section (pretrain), or the label of each text, or pair of texts, of
    task.train (classify)"""
    train: str | None = None
    """files of examples to learn from, given like data.path (.csv, .tsv, .jsonl, .json and .parquet, each also .gz or
    .zst)"""
    eval: str | None = None
    """files of examples to hold out, given likewise; by default a share of task.train, of each label alike"""
    eval_share: float = 0.1
    """share of the examples of task.train that is held out where there is no task.eval; equal texts stay together"""
    text: str = "text"
    """column that holds the text, a.b for b within a"""
    pair: str | None = None
    """column that holds a second text, for examples that are pairs; by default they are not"""
    label: str = "label"
    """column that holds the label, which is read as text"""
    label_smoothing: float = 0.0
    """share of each label's probability that is spread evenly over all of them, in training alone"""
    class_weights: Literal["none", "balanced"] = "none"
    """what an example counts for in training: all the same, or such that every label counts for as much in all"""
    reinit_layers: int = 0
    """number of last encoder layers of init_from that start anew, with the pooler above them (Zhang et al. 2021)"""

    def __post_init__(self) -> None:
        require_types(self, "task")
        for name in ("train", "eval"):
            expand_homes(self, name)
        require_at_least(self, "task", 0, "reinit_layers")
        require(0 < self.eval_share < 1, f"task.eval_share={self.eval_share} is not a share; give 0 < eval_share < 1")
        require(
            0 <= self.label_smoothing < 1,
            f"task.label_smoothing={self.label_smoothing} is not a share; give 0 <= label_smoothing < 1",
        )
        columns = [name for name in (self.text, self.pair, self.label) if name is not None]
        require(
            all(columns) and len(set(columns)) == len(columns),
            f"task.text={self.text}, task.pair={self.pair} and task.label={self.label} are not columns of their own; "
            "give each another name",
        )
