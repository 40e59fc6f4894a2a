"""The data and tokenizer sections: where text comes from, and how it becomes batches."""

import dataclasses
from typing import Literal

from bertjax.config.checks import expand_homes, require, require_at_least, require_shares, require_types
from bertjax.storage.paths import check_no_url

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
    """Text: where it comes from, and how it becomes sequences to train on"""

    source: Source = "wikitext-2"
    """WikiText-2, the documentation that ships with Python (needs no download), or your own files"""
    path: str | None = None
    """your files, folders and globs such as texts/**/*.jsonl.gz, separated by ':' (text, .jsonl, .json, .csv, .tsv and
    .parquet, each also .gz or .zst); for WikiText-2 a folder that may already hold wiki.{train,valid,test}.tokens,
    which is used before any download"""
    eval_path: str | None = None
    """your held-out files, given like data.path; by default one document in a hundred of data.path is the valid split,
    and another one the test split"""
    document: Literal["file", "line", "block"] = "block"
    """what one document is in plain text: a file, a line, or a block of lines that ends at a blank line; true pairs and
    passages never cross its end"""
    sentence: Literal["split", "line"] = "split"
    """how the text of files becomes sentences: split by the rules of data.language, or one sentence a line"""
    language: str = "en"
    """language of the text of files, by whose rules it is split into sentences: a two-letter code"""
    text_field: str = "text"
    """field of JSON, or column of tables and Parquet files, that holds the text, a.b for b within a; each record is one
    document"""
    on_bad: Literal["stop", "skip"] = "stop"
    """what to do with a file or record that cannot be read: stop, or skip it; ten are named, and all counted by reason,
    in the run's environment.json too"""
    workers: int | None = None
    """number of processes that tokenise files, each on one core; by default one for each core"""
    fallback: Literal["python-docs"] | None = None
    """corpus to use when data.source cannot be had; by default that is an error"""
    cache: str | None = None
    """folder for downloads and tokenised corpora; by default a folder bertjax in the user's cache"""
    train_split: Split = "train"
    """split to train on; the vocabulary is built from it too"""
    eval_split: Split = "valid"
    """split to hold out"""
    objective: Objective = "mlm+nsp"
    """what the model learns: masked tokens (MLM), together with whether the second sentence follows the first (NSP, as
    in BERT) or whether two sentences are in order (SOP, as in ALBERT); or MLM alone, on as many sentences of a
    paragraph as fit (as in RoBERTa)"""
    max_length: int = 128
    """longest sequence in tokens, <cls> and <sep> included; a sequence is a pair of sentences, or a passage for mlm
    alone"""
    row_length: int | None = None
    """length in tokens of a row of the batch; where it is greater than data.max_length, several sequences are packed
    into each row; by default data.max_length, one sequence a row"""
    too_long: Literal["truncate", "drop"] = "truncate"
    """what to do with a sequence longer than data.max_length: cut words off the longer sentence, or drop it (as the
    textbook does)"""
    mlm_probability: float = 0.15
    """share of a sequence's words to mask for prediction, above 0 and up to 1; at least one word is"""
    mlm_probability_end: float | None = None
    """share at the last step, which data.mlm_probability approaches linearly; by default it is constant"""
    mask_unit: Literal["token", "word", "span"] = "token"
    """unit of masking: tokens, words with all their pieces, or spans of up to 10 words (as in SpanBERT)"""
    predict_unk: bool = False
    """whether <unk> itself may be masked for prediction (as in the textbook)"""

    def __post_init__(self) -> None:
        require_types(self, "data")
        if self.cache is not None:
            check_no_url(self.cache, "data.cache")
        expand_homes(self, "cache")
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
        """Prediction heads of the objective: names in parameters and metrics, to the names shown to people.

        The head for pairs is always "nsp" in parameters and metrics.
        """
        return HEADS[self.objective]

    @property
    def sequences(self) -> str:
        """Word for the sequences of the objective, such as "pairs"."""
        return "sequences" if self.objective == "mlm" else "pairs"


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Vocabulary, built from the training split"""

    kind: Literal["word", "wordpiece", "bpe", "unigram"] = "word"
    """tokens are words separated by white space (as in the textbook), or pieces of words (as in BERT); of a
    vocabulary that is read also pieces merged from bytes (as in RoBERTa) or the likeliest ones (as in XLM-RoBERTa)"""
    vocab_size: int | None = None
    """largest number of tokens, special ones included; by default every word that is frequent enough, or 30,522 pieces
    as in BERT"""
    min_frequency: int = 5
    """smallest number of occurrences for a word or piece to become a token; words without a token become <unk>"""
    max_megabytes: int = 512
    """most megabytes of files that the vocabulary is built from, sampled evenly from all of them"""
    lowercase: bool = True
    """whether text is lowercased, so that Crane and crane are one word"""
    strip_accents: bool | None = None
    """whether wordpiece removes accents; by default it does where tokenizer.lowercase is true, as in BERT"""
    path: str | None = None
    """folder of a run or of a Hugging Face model, or a tokenizer.json, vocab.txt or vocab.json, to read the vocabulary
    from instead of building one; the other keys of this section then follow it"""
    add: str | None = None
    """file of words of your own, one a line, that a vocabulary which is read gets as one token each, to pretrain; their
    vectors start from the mean of those of the pieces that they were"""

    def __post_init__(self) -> None:
        require_types(self, "tokenizer")
        expand_homes(self, "path", "add")
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
