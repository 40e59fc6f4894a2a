"""Preparation: text is found, its vocabulary built, its ids stored, and batches are drawn from them."""

import contextlib
import dataclasses
import functools
import io
import logging
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import Config, Split, TokenizerConfig
from bertjax.data.batching.batches import Batches
from bertjax.data.batching.pairs import DRAWS
from bertjax.data.corpus.building import load_or_build_files
from bertjax.data.corpus.corpus import FORMAT, Corpus, load_or_build
from bertjax.data.document import Document
from bertjax.data.sources.files import told
from bertjax.data.sources.open_source import open_source
from bertjax.data.sources.source import Source
from bertjax.data.statistics.frequencies import word_counts
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.own_words import with_words_of
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, NUM_SPECIAL, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.data.tokenizer.training import TRAINING
from bertjax.errors import BertjaxError
from bertjax.storage.cache import building_in, cache_folder, cache_key, writing_in
from bertjax.storage.fetch import here
from bertjax.storage.hub_models import model_folder
from bertjax.storage.locks import locked_beside
from bertjax.storage.paths import user_path

_logger = logging.getLogger(__name__)

_MOST_UNKNOWN = 0.01  # share of the training text's tokens, without a word
# Held-out pairs and masks are the same in every run, whatever its seed.
_HELD_OUT_SEED = 0x5EED


class Prepared(NamedTuple):
    """The vocabulary, text and batches of a run."""

    config: Config  # with the source that was found, the vocabulary's size, and the rules of one that was read
    tokenizer: Tokenizer
    train: Corpus
    held_out: Corpus
    train_batches: Batches
    held_out_batches: Batches
    instead_of: str | None  # why the fallback was taken; None where it was not
    teacher: Any = None  # whom it learns from too, `train.teacher.Teacher`; None where nobody teaches

    def told(self) -> dict[str, Any]:
        """Returns what a run's environment.json tells of its text."""

        def described(corpus: Corpus) -> dict[str, Any]:
            told = {"name": corpus.name, "digest": corpus.digest, "tokens": corpus.ids.size}
            return told | ({"skipped": dict(corpus.skipped)} if corpus.skipped else {})

        told = {
            "source": self.config.data.source,
            "fallback_because": self.instead_of,
            "train": described(self.train),
            "held_out": described(self.held_out),
        }
        return told if self.teacher is None else told | {"teacher": self.teacher.digest}

    def files(self) -> dict[str, bytes]:
        """Returns how often each word is in the training text, as a run keeps it."""
        file = io.BytesIO()
        np.save(file, word_counts(self.train, self.tokenizer.vocab_size))
        return {"word_counts.npy": file.getvalue()}


def prepare(config: Config, tokenizer: Tokenizer | None = None, *, source: Source | None = None) -> Prepared:
    """Finds, tokenises and opens both splits; the vocabulary is the training split's unless one is given to be read.

    Args:
      tokenizer: that of a run that has begun.
      source: a text of one's own, in place of data.source.

    Raises:
      BertjaxError: the text cannot be had, holds less than a batch, or the cache cannot be written.
    """
    begins = tokenizer is None
    source, instead_of, tokenizer = open_text(config, tokenizer, source)
    data, train, there = config.data, config.train, _vocabulary_there(config)
    if tokenizer.vocab_size == NUM_SPECIAL:
        raise BertjaxError(
            f"no word of {source.name}/{data.train_split} is seen tokenizer.min_frequency="
            f"{config.tokenizer.min_frequency} times; give a lower frequency or more text"
        )
    vocab_size = config.model.vocab_size or tokenizer.vocab_size
    if config.tokenizer.add is not None:
        vocab_size = max(vocab_size, tokenizer.vocab_size)
    if vocab_size < tokenizer.vocab_size:
        raise BertjaxError(
            f"model.vocab_size={vocab_size} is below the tokenizer's {tokenizer.vocab_size} tokens; leave it out, "
            "or raise tokenizer.min_frequency"
        )
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(data, source=data.fallback or data.source) if instead_of else data,
        tokenizer=as_read(config.tokenizer, tokenizer.rules) if there else config.tokenizer,
        model=dataclasses.replace(config.model, vocab_size=vocab_size),
    )
    corpus = _tokenise(config, source, data.train_split, tokenizer)
    if begins:
        _warn_of_unknown(corpus, tokenizer, was_read=bool(there))
    held_out = corpus if data.eval_split == data.train_split else _tokenise(config, source, data.eval_split, tokenizer)
    train_batches = _batches(
        *(config, corpus, tokenizer),
        batch_size=train.batch_size,
        warmup_steps=train.batch_warmup_steps,
        seed=config.seed,
    )
    if train_batches.num_sequences < train.batch_size:
        some = f"{train_batches.num_sequences} {data.sequences}"
        raise BertjaxError(
            f"the corpus {corpus.name} has {some} that fit in data.max_length={data.max_length}, "
            f"fewer than train.batch_size={train.batch_size}; give more text or a smaller batch"
        )
    held_out_batches = _held_out_batches(config, held_out, tokenizer)
    return Prepared(config, tokenizer, corpus, held_out, train_batches, held_out_batches, instead_of)


def open_text(
    config: Config, tokenizer: Tokenizer | None = None, source: Source | None = None
) -> tuple[Source, str | None, Tokenizer]:
    """Returns what a run learns from, why it is the fallback if it is, and its vocabulary, built if need be.

    The arguments and errors are those of `prepare`.
    """
    check_pretrains(config)
    data, instead_of = config.data, None
    if source is None:
        source, instead_of = open_source(
            data, list(dict.fromkeys((data.train_split, data.eval_split))), cache_of(config)
        )
    if tokenizer is None:
        there = _vocabulary_there(config)
        tokenizer = read_tokenizer(there) if there else _train_tokenizer(config, source)
        if (words := config.tokenizer.add) is not None:
            tokenizer = with_words_of(tokenizer, user_path(here(words, data.cache)))
    return source, instead_of, tokenizer


def _vocabulary_there(config: Config) -> str | None:
    return config.init_from or config.tokenizer.path or config.distill.teacher


def prepare_held_out(config: Config, tokenizer: Tokenizer) -> tuple[Corpus, Batches]:
    """Opens the held-out split alone, and its batches. Raises BertjaxError where it cannot be had."""
    check_pretrains(config)
    split = config.data.eval_split
    source, _ = open_source(config.data, [split], cache_of(config))
    corpus = _tokenise(config, source, split, tokenizer)
    return corpus, _held_out_batches(config, corpus, tokenizer)


def check_pretrains(config: Config) -> None:
    """Raises BertjaxError where the configuration is not of a run that learns from plain text."""
    if config.task.kind != "pretrain":
        raise BertjaxError(
            f"task.kind={config.task.kind} learns from labelled examples, and has no text of its own; "
            "'bertjax finetune' makes such runs, 'bertjax evaluate' and 'bertjax predict' use them"
        )


def describe(prepared: Prepared) -> str:
    """Returns a line for each split, and before them a notice where the fallback was taken."""
    lines = []
    if prepared.instead_of is not None:
        reason = textwrap.fill(prepared.instead_of, 100, break_long_words=False, break_on_hyphens=False)
        lines.append(f"NOTICE:   {prepared.config.data.source} is read instead of what was asked for, because")
        lines.append(textwrap.indent(reason, " " * 10))
    what = prepared.config.data.sequences
    for role, corpus, batches in (
        ("train:", prepared.train, prepared.train_batches),
        ("held out:", prepared.held_out, prepared.held_out_batches),
    ):
        lines.append(
            f"{role:<10}{corpus.name}: {len(corpus.paragraphs) - 1:,} paragraphs, {len(corpus.sentences) - 1:,} "
            f"sentences, {corpus.ids.size:,} tokens, {batches.num_sequences:,} {what} that fit"
            + (f", packed: {batches.num_rows:,} rows a step, {batches.fill:.1%} full" if batches.packed else "")
        )
        if batches is prepared.train_batches and batches.packed and batches.fill < 0.5:
            lines.append(
                "NOTICE:   most of each row is padding; there is less with a data.row_length below "
                f"{batches.row_length}, or a train.batch_size above {batches.batch_size}"
            )
        if share := batches.without_stranger:
            lines.append(
                f"NOTICE:   {share:.2%} of the pairs of {corpus.name} that were to have another sentence than the next "
                f"keep that one: the text repeats itself, and {DRAWS} draws found no other words that fit"
            )
    skipped = Counter(prepared.train.skipped)
    if prepared.config.data.eval_path is not None:  # else both are of the same files
        skipped.update(prepared.held_out.skipped)
    if skipped:
        lines.append(f"skipped:  {told(skipped)}")
    tokens = "words:" if prepared.tokenizer.rules.kind == "word" else "pieces:"
    lines.append(f"{tokens:<10}{prepared.tokenizer.vocab_size:,} in the vocabulary, special tokens included")
    return "\n".join(lines)


def cache_of(config: Config) -> Path:
    """Returns the cache folder of a configuration."""
    return Path(config.data.cache) if config.data.cache else cache_folder()


def _tokenise(config: Config, source: Source, split: Split, tokenizer: Tokenizer) -> Corpus:
    if (files := source.user_files(split)) is not None:
        return load_or_build_files(cache_of(config), files, split, tokenizer, workers=config.data.workers)
    documents, name = source.documents(split), f"{source.name}/{split}"
    return load_or_build(cache_of(config), name, source.fingerprint(split), documents, tokenizer)


def _held_out_batches(config: Config, corpus: Corpus, tokenizer: Tokenizer) -> Batches:
    # Evaluation needs no more memory at once than a part of a batch does in training.
    batch_size = config.train.batch_size // config.train.parts
    config = dataclasses.replace(config, data=config.held_out_data)
    return _batches(config, corpus, tokenizer, batch_size=batch_size, seed=_HELD_OUT_SEED)


def _batches(
    config: Config, corpus: Corpus, tokenizer: Tokenizer, *, batch_size: int, warmup_steps: int = 0, seed: int
) -> Batches:
    data = config.data
    return Batches(
        corpus,
        objective=data.objective,
        batch_size=batch_size,
        max_length=data.max_length,
        row_length=data.row_length,
        vocabulary=tokenizer.vocabulary,
        mlm_probability=data.mlm_probability,
        mlm_probability_end=data.mlm_probability_end,
        steps=config.train.steps,
        warmup_steps=warmup_steps,
        mask_unit=data.mask_unit,
        predict_unk=data.predict_unk,
        too_long=data.too_long,
        seed=seed,
    )


def _warn_of_unknown(corpus: Corpus, tokenizer: Tokenizer, *, was_read: bool) -> None:
    """Warns where much of the training text is unknown, which its losses do not show."""
    unknown = int(word_counts(corpus, tokenizer.vocab_size)[tokenizer.vocabulary.unk])
    if unknown <= _MOST_UNKNOWN * corpus.ids.size:
        return
    if was_read:
        remedy = "a vocabulary made for this text, without tokenizer.path and init_from, knows more"
    elif tokenizer.rules.kind == "word":
        remedy = "a lower tokenizer.min_frequency, or tokenizer.kind: wordpiece, leaves fewer"
    else:
        remedy = "a greater tokenizer.vocab_size leaves fewer, but for words of more than 100 characters"
    share, unk = unknown / corpus.ids.size, tokenizer.unk
    _logger.warning(f"{share:.1%} of the tokens of {corpus.name} are {unk}, what the vocabulary lacks: {remedy}")


class _Sentences:
    """The sentences of documents, as often as they are asked for."""

    def __init__(self, documents: Callable[[], Iterator[Document]]):
        self._documents = documents

    def __iter__(self) -> Iterator[str]:
        return (sentence for document in self._documents() for paragraph in document for sentence in paragraph)


def as_read(config: TokenizerConfig, rules: Rules) -> TokenizerConfig:
    """Returns what a vocabulary that was read is: what the recipe says of it gives way."""
    strip_accents = rules.strip_accents if rules.kind == "wordpiece" else None
    ours = TokenizerConfig(rules.kind, lowercase=rules.lowercase, strip_accents=strip_accents)
    return dataclasses.replace(ours, path=config.path, add=config.add)


def read_tokenizer(there: str, *, masks: bool = True) -> Tokenizer:
    """Reads a vocabulary to train with: texts are laid out as BERT's are, and so is what the run's encoder reads.

    Where spaces are parts of tokens, pairs stay as the vocabulary's files have them, with RoBERTa's two `</s>` say.

    Args:
      masks: words are to be hidden.

    Raises:
      BertjaxError: it cannot be read, or has no mask.
    """
    read = load_tokenizer(model_folder(there))
    if masks and read.vocabulary.mask is None:
        raise BertjaxError(f"the vocabulary of {there} has no mask to hide words with; give one that has [MASK]")
    berts = read.with_template(None)
    keeps_pairs = not read.rules.tell_all and read.template.single == berts.template.single
    tokenizer = read.with_template(read.template._replace(keep_end=False)) if keeps_pairs else berts
    if tokenizer.template != read.template:
        _logger.info(f"NOTICE:   {there} sets special tokens in a way of its own; the run does it as BERT does")
    return tokenizer


def _train_tokenizer(whole: Config, source: Source) -> Tokenizer:
    """Builds the vocabulary of the training split, or takes it from the cache where that was done before."""
    config, cache, split = whole.tokenizer, cache_of(whole), whole.data.train_split
    version = [TRAINING] if config.kind == "wordpiece" else []
    if config.kind in ("bpe", "unigram"):
        raise BertjaxError(
            f"tokenizer.kind={config.kind} is of vocabularies that are read; give tokenizer.path, or build one by "
            "tokenizer.kind=wordpiece"
        )
    key = cache_key(FORMAT, source.fingerprint(split), dataclasses.astuple(config), *version)
    path = cache / "tokenizers" / f"{source.name}-{split}-{key}.json"
    with contextlib.suppress(BertjaxError):  # not there yet, or damaged by some accident
        return load_tokenizer(path)
    rules = Rules("word", config.lowercase)
    if config.kind == "wordpiece":
        strip_accents = config.lowercase if config.strip_accents is None else config.strip_accents
        rules = Rules("wordpiece", config.lowercase, strip_accents, special=BERTS_SPECIAL_TOKENS)
    documents = functools.partial(source.documents, split)
    if (files := source.user_files(split)) is not None:
        documents = functools.partial(files.documents, split, most_bytes=config.max_megabytes * 1e6)
    with writing_in(cache):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_beside(path):
            with contextlib.suppress(BertjaxError):  # another has built it while we waited
                return load_tokenizer(path)
            tokenizer = Tokenizer.train(
                _Sentences(documents), rules=rules, min_frequency=config.min_frequency, vocab_size=config.vocab_size
            )
            with building_in(path.parent) as unfinished:
                (unfinished / path.name).write_text(tokenizer.to_json(), encoding="utf-8")
                os.replace(unfinished / path.name, path)
    return tokenizer
