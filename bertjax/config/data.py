"""The data and tokenizer sections: where text comes from, and how it becomes batches."""

import dataclasses
from typing import Literal

from bertjax.config.checks import require, require_at_least, require_shares

Source = Literal["wikitext-2", "python-docs", "files"]
Split = Literal["train", "valid", "test"]
Objective = Literal["mlm+nsp", "mlm+sop", "mlm"]
HEADS: dict[Objective, dict[str, str]] = {
    "mlm+nsp": {"mlm": "MLM", "nsp": "NSP"},
    "mlm+sop": {"mlm": "MLM", "nsp": "SOP"},
    "mlm": {"mlm": "MLM"},
}
"""Prediction heads of each objective: from a head's name in parameters and metrics to the name shown to people."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Text: where it comes from and how it becomes sequences to learn from"""

    source: Source = "wikitext-2"
    """WikiText-2, the documentation that ships inside Python (needs no download), or your own files"""
    path: str | None = None
    """your files, folders and globs such as texts/**/*.jsonl.gz, apart by ':' (text, .jsonl, .parquet, .gz, .zst); for
    WikiText-2 a folder that already holds wiki.{train,valid,test}.tokens, which is looked in first"""
    eval_path: str | None = None
    """your held-out files; by default one document in a hundred of data.path is valid, and another test"""
    document: Literal["file", "line", "block"] = "block"
    """what a document is in plain text: a file, a line, or a block of lines up to a blank one; pairs stay inside"""
    sentence: Literal["split", "line"] = "split"
    """whether the text of files is split into sentences, or has one on each line"""
    language: str = "en"
    """of the text of files, for its splitting: a code of two letters"""
    text_field: str = "text"
    """field of JSON lines, column of Parquet files that holds the text; a record is a document"""
    on_bad: Literal["stop", "skip"] = "stop"
    """what to do about a file, or a record in it, that cannot be read: stop, or skip it with a warning"""
    workers: int | None = None
    """processes that tokenise files, each on one core; by default one a core"""
    fallback: Literal["python-docs"] | None = None
    """corpus to use when the source cannot be had; without it that is an error"""
    cache: str | None = None
    """folder for downloads and tokenised corpora; by default bertjax in the user's cache folder"""
    train_split: Split = "train"
    """split to learn from; the vocabulary is built from it too"""
    eval_split: Split = "valid"
    """split that is held out"""
    objective: Objective = "mlm+nsp"
    """masked words and whether the second sentence of a pair is the next (BERT), or whether the two are in order
    (ALBERT); or masked words alone, in as many sentences of a paragraph as fit (RoBERTa)"""
    max_length: int = 128
    """tokens in a pair, or in what the objective has instead, at most; <cls> and <sep> included"""
    row_length: int | None = None
    """tokens in a row; rows longer than max_length hold several pairs, packed; by default max_length, one pair a row"""
    too_long: Literal["truncate", "drop"] = "truncate"
    """a pair longer than that loses words from its longer side, or is left out (the textbook's way); where there are no
    pairs, a sentence"""
    mlm_probability: float = 0.15
    """share of the words of a pair, or what the objective has instead, to predict; at least one is"""
    mlm_probability_end: float | None = None
    """rate of the last step, to which it rises or falls evenly; by default it stays"""
    mask_unit: Literal["token", "word", "span"] = "token"
    """what is chosen to be predicted: tokens, words with all their pieces, or spans of up to 10 words (SpanBERT)"""
    predict_unk: bool = False
    """let <unk> itself be a word to predict (the textbook's way)"""

    def __post_init__(self) -> None:
        require_at_least(self, "data", 5, "max_length")
        if self.workers is not None:
            require_at_least(self, "data", 1, "workers")
        if self.row_length is not None:
            require(
                self.max_length <= self.row_length < 2**31,
                f"data.row_length={self.row_length} is below data.max_length={self.max_length}; "
                "give rows at least as long as the pairs, or leave it out",
            )
        if self.source == "files":
            require(bool(self.path), "data.source=files needs data.path; give your files, folders or globs")
        else:
            require(
                self.eval_path is None,
                f"data.eval_path={self.eval_path} has no effect with data.source={self.source}; give data.source=files",
            )
        require_shares(self, "data", "mlm_probability", "mlm_probability_end")

    @property
    def heads(self) -> dict[str, str]:
        """The heads that learn, by their names in metrics, and what people call them.

        In parameters and metrics the head for pairs is always "nsp".
        """
        return HEADS[self.objective]

    @property
    def sequences(self) -> str:
        """What a sequence is called, in the plural."""
        return "sequences" if self.objective == "mlm" else "pairs"


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Vocabulary, made of the training split"""

    kind: Literal["word", "wordpiece"] = "word"
    """words as white space has them (the textbook's way), or pieces of words (BERT's)"""
    vocab_size: int | None = None
    """tokens at most, special ones included; by default all that are frequent enough, of pieces 30,522 as BERT has"""
    min_frequency: int = 5
    """a word, or a piece, seen less often than this is no token; a word that is none becomes <unk>"""
    max_megabytes: int = 512
    """of files that the vocabulary is made of at most, taken evenly from all over them"""
    lowercase: bool = True
    """whether Crane and crane are one"""
    strip_accents: bool | None = None
    """whether pieces lose their accents; by default they do where lowercase is true, as in BERT"""
    path: str | None = None
    """folder of a run or of a Hugging Face model, or its tokenizer.json, to take the vocabulary from instead of making
    one; the other keys then become what that one is"""

    def __post_init__(self) -> None:
        require_at_least(self, "tokenizer", 1, "min_frequency", "max_megabytes")
        if self.vocab_size is not None:
            require(
                6 <= self.vocab_size <= 2**24,
                f"tokenizer.vocab_size={self.vocab_size} is impossible; give 6 to 16,777,216 tokens",
            )
        require(
            self.kind == "wordpiece" or self.strip_accents is None,
            f"tokenizer.strip_accents={self.strip_accents} has no effect with tokenizer.kind=word; use wordpiece",
        )
