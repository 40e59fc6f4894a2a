"""The task section: labelled examples, and what is learned of them when a model is fine-tuned."""

import dataclasses
import math
from typing import Literal

from bertjax.config.checks import expand_homes, require, require_at_least, require_types


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Fine-tuning; examples are rows of tables or records, with columns by name"""

    kind: Literal["pretrain", "classify", "score", "rerank", "tag", "answer", "embed"] = "pretrain"
    """what a run learns: the text of the data section (pretrain); or of each text, or pair of texts, of task.train the
    label (classify), a number (score), or how well a passage answers a query, from 0 to 1 (rerank); or the tag of each
    word of the sentences there (tag); or where in a context the answer to a question stands, if it has one (answer); or
    vectors that are near each other for texts that belong together (embed)"""
    train: str | None = None
    """files of examples to learn from, given like data.path (.csv, .tsv, .jsonl, .json, .parquet and .arrow, each also
    .gz or .zst); of sentences, records with lists (.jsonl, .json, .parquet, .arrow), or a word a line with its tag
    (.conll, .txt, .tsv); of questions, SQuAD's own .json too. Of a folder with a file or folder called train, as
    GLUE's, or what datasets saved, that"""
    eval: str | None = None
    """files of examples to hold out, given likewise, of a folder of splits its validation or dev; by default those in
    the folder of task.train, else a share of task.train, of each label alike"""
    eval_share: float = 0.1
    """share of the examples of task.train that is held out where there is no task.eval; equal texts stay together"""
    split_seed: int | None = None
    """seed of the choice of what is held out, for runs of several seeds that hold out the same; by default seed"""
    group: str | None = None
    """column, such as one that names documents, whose equal rows stay together too when a share is held out; of files
    with a word a line the number of a column, else the documents there, which begin with -DOCSTART-; to
    rerank, by default the query"""
    text: str = "text"
    """column that holds the text, or the list of words, a.b for b within a; of files with a word a line the number of
    the words' column, from 1 on, else the first is"""
    pair: str | None = None
    """column that holds a second text, for examples that are pairs; by default they are not"""
    label: str = "label"
    """column that holds the label, which is read as text, or the number, or the list of tags, or the answers; of files
    with a word a line the number of the tags' column, else the last is"""
    columns: tuple[str, ...] | None = None
    """names of the columns, in their order, for tables (.csv, .tsv) whose first line has none of these names but is an
    example; by default the first line names them"""
    label_separator: str | None = None
    """what stands between the labels of an example that may have several, or none, to classify; JSON may have lists of
    them. By default an example has one"""
    label_pieces: Literal["first", "all"] = "first"
    """which pieces of a word are to learn its tag; figures and predictions are those of the first one"""
    stride: int = 128
    """tokens from the beginning of one window of a long context to that of the next (answer); BERT's doc stride"""
    max_answer: int = 30
    """tokens that an answer has at most, where one is looked for (answer)"""
    label_smoothing: float = 0.0
    """share of each label's probability that is spread evenly over all of them, in training alone"""
    class_weights: Literal["none", "balanced"] = "none"
    """what an example counts for in training: all the same, or such that every label counts for as much in all; of
    several labels each, such that having it counts for as much as not having it"""
    balance: bool = False
    """whether every batch has its share of all labels (classify), as near as their number allows, rather than what
    chance gives it; an epoch still has every example once"""
    reinit_layers: int = 0
    """number of last encoder layers of init_from that start anew, with the pooler above them (Zhang et al. 2021)"""

    loss: Literal["in_batch", "cosent"] = "in_batch"
    """what vectors are to be like (embed): that of task.text nearer to that of task.pair than to all others of the
    batch (in_batch), or cosines in the order of the scores in task.label (cosent)"""
    negatives: str | tuple[str, ...] | None = None
    """columns of texts that task.text does not belong to although they are like it (hard negatives), or one that holds
    a list of them; empty ones are left out"""
    temperature: float = 0.05
    """what cosines are divided by in the loss: the lower, the more the nearest ones count"""
    symmetric: bool = False
    """whether the text of task.pair is to be nearest to its task.text too, the loss being the mean of both ways"""
    matryoshka: tuple[int, ...] | None = None
    """sizes such as [384, 128, 64], so many of a vector's first numbers being learned to do alone; by default all"""
    pooling: Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] | None = None
    """how the vector of a text is made of its tokens'; by default as the folder of init_from says, else by the mean"""

    def __post_init__(self) -> None:
        require_types(self, "task")
        expand_homes(self, "train", "eval")
        require_at_least(self, "task", 0, "reinit_layers")
        require_at_least(self, "task", 1, "stride", "max_answer")
        require(0 < self.eval_share < 1, f"task.eval_share={self.eval_share} is not a share; give 0 < eval_share < 1")
        require(
            0 <= self.label_smoothing < 1,
            f"task.label_smoothing={self.label_smoothing} is not a share; give 0 <= label_smoothing < 1",
        )
        for name, default, kinds in (
            ("columns", None, ("classify", "score", "rerank", "answer", "embed")),
            ("label_separator", None, ("classify",)),
            ("label_smoothing", 0.0, ("classify", "tag")),
            ("class_weights", "none", ("classify", "tag")),
            ("label_pieces", "first", ("tag",)),
            ("stride", 128, ("answer",)),
            ("max_answer", 30, ("answer",)),
            ("balance", False, ("classify",)),
        ):
            value = getattr(self, name)
            require(
                self.kind in ("pretrain", *kinds) or value == default,
                f"task.{name}={value} is of task.kind={' or '.join(kinds)}, and it is {self.kind}; leave it out",
            )
        require(
            self.kind != "tag" or self.pair is None,
            f"task.pair={self.pair} is of pairs of texts, and task.kind=tag reads sentences; leave it out",
        )
        require(
            self.kind != "answer" or self.pair is not None,
            "task.kind=answer reads a question (task.text) and a context; give task.pair the column of the context",
        )
        require(self.label_separator != "", "task.label_separator is empty; give what stands between labels, such as ,")
        require(
            self.kind != "rerank" or self.pair is not None,
            "task.kind=rerank reads a query (task.text) and a passage; give task.pair the column of the passage",
        )
        require(
            self.columns is None or (all(self.columns) and 0 < len(set(self.columns)) == len(self.columns)),
            f"task.columns={list(self.columns or ())} are no names of columns; give each its own, as in [label, text]",
        )
        require(self.group is None or bool(self.group), "task.group is empty; name a column, or leave it out")
        columns = [name for name in (self.text, self.pair, self.label) if name is not None]
        require(
            all(columns) and len(set(columns)) == len(columns),
            f"task.text={self.text}, task.pair={self.pair} and task.label={self.label} are not columns of their own; "
            "give each another name",
        )
        self._check_embed()

    def _check_embed(self) -> None:
        require(0 < self.temperature < math.inf, f"task.temperature={self.temperature} is impossible; give more than 0")
        sizes = self.matryoshka
        require(
            sizes is None or (len(sizes) > 0 and min(sizes) > 0 and len(set(sizes)) == len(sizes)),
            f"task.matryoshka={list(sizes or ())} are not sizes; give some such as [384, 128, 64], or leave it out",
        )
        negatives = [self.negatives] if isinstance(self.negatives, str) else self.negatives
        require(
            negatives is None or (all(negatives) and len({*negatives, self.text, self.pair}) == len(negatives) + 2),
            f"task.negatives={self.negatives} are not columns of their own beside task.text={self.text} and task.pair="
            f"{self.pair}; name others, or leave it out",
        )
        require(
            self.loss == "in_batch" or (self.pair is not None and not self.symmetric and self.negatives is None),
            f"task.loss={self.loss} learns from scored pairs alone; give task.pair, and neither task.negatives nor "
            "task.symmetric",
        )
