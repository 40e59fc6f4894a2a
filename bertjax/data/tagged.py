"""Tagged sentences: rows of the user's files as token ids and tag numbers, and which of them are held out."""

import hashlib
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from bertjax.config import TaskConfig
from bertjax.data.examples import columns_of, digest_of, read_records
from bertjax.data.sources.columns import Block, blocks
from bertjax.data.sources.files import find_files
from bertjax.data.sources.lines import BadError, Part, kind_of
from bertjax.data.sources.records import Place, as_text, in_field
from bertjax.data.tags import Tags, learn_scheme
from bertjax.data.tokenizer.template import A, Template
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.data.tokenizer.words import Pieces
from bertjax.errors import BertjaxError

_logger = logging.getLogger(__name__)

_AT_ONCE = 8192  # sentences that are split together
NO_TAG = -1  # of tokens that teach nothing, and of words that are not read


class Sentence(NamedTuple):
    """Words, with their tags where these are needed, as a file has them."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    place: Place  # of its record, or of its first word
    source: dict[str, Any] | Block
    group: str | None = None  # what it stays together with

    @property
    def key(self) -> bytes:
        """Sixteen bytes of what it says: sentences that differ in nothing have one."""
        return digest_of(*self.words, *self.tags)

    def place_of(self, word: int) -> str:
        """Returns what complaints call a word, by its number."""
        if isinstance(self.source, Block):
            return str(self.place._replace(number=self.place.number + word))
        return f"word {word + 1} in {self.place}"


class TaggedExamples(NamedTuple):
    """n sentences of m tokens and w words in all, in an order that their files' does not change."""

    name: str
    digest: str
    ids: np.ndarray  # int32 [m], those of all, one after the other
    starts_n: np.ndarray  # where each begins in them, and at last where the last one ends
    labels_m: np.ndarray  # int32, the number of the tag that a token has, NO_TAG where it teaches none
    word_starts_n: np.ndarray  # where the words of each begin among all words, and at last where they end
    first_tokens_w: np.ndarray  # the place of a word's first piece among all tokens, -1 where it is not read
    tags_w: np.ndarray  # int32, the number of each word's tag

    @property
    def lengths_n(self) -> np.ndarray:
        """Number of tokens, special ones included."""
        return np.diff(self.starts_n)

    @property
    def len_a_n(self) -> np.ndarray:
        """Number of tokens of the first segment: all."""
        return self.lengths_n

    @property
    def num_sequences(self) -> int:
        """Number of sentences."""
        return len(self.starts_n) - 1


def read_sentences(task: TaskConfig, path: str, key: str, *, labelled: bool = True) -> Iterator[Sentence]:
    """Yields the sentences of files, in their order there.

    Records (.jsonl, .json, .parquet) have lists of words and of tags in the columns task.text and task.label. All other
    files are in columns that have no names: there words are in the first and tags in the last, unless task.text and
    task.label are their numbers, from 1 on.

    Args:
      path: as `find_files` takes it.
      key: the option that gave the path.
      labelled: whether tags are needed. Without them a record may have a text in place of a list, which is one word
        then, or no words; and of a file in columns all lines come, the last ones with no words.

    Raises:
      BertjaxError: a file, a row or a record cannot be read, or has no words, or not a tag for each.
    """
    for file in find_files(path, key):
        kind = kind_of(file).format
        if kind == "csv":
            raise BertjaxError(
                f"{file} is a table, and sentences are lists of words; give {key} lists in .jsonl, .json or .parquet, "
                "or a word and its tag a line in .conll, .txt or .tsv"
            )
        try:
            yield from (
                _in_columns(task, file, labelled) if kind in ("text", "tsv") else _in_records(task, file, key, labelled)
            )
        except BadError as error:
            raise BertjaxError(f"{error}; mend it, or leave it out") from None


def _in_columns(task: TaskConfig, file: Path, labelled: bool) -> Iterator[Sentence]:
    chosen: tuple[int, int, int | None] | None = None
    for block in blocks(file):
        place = Place(Part(str(file)), "line", block.number)
        if not block.rows:  # only what stands after the last sentence
            if not labelled:
                yield Sentence((), (), place, block)
            continue
        if chosen is None:
            chosen = _choose_columns(task, place, len(block.rows[0]), labelled)
        of_words, of_tags, of_groups = chosen
        words = tuple(row[of_words] for row in block.rows)
        tags = tuple(row[of_tags] for row in block.rows) if labelled else ()
        for number, fields in enumerate(itertools.zip_longest(words, tags, fillvalue="-"), block.number):
            if not all(fields):
                what = "word" if not fields[0] else "tag"
                raise BadError(f"line {number:,} of {file} has an empty {what}", "empty")
        group = f"{file}:{block.document}" if block.document else None
        if of_groups is not None:
            group = block.rows[0][of_groups]
        yield Sentence(words, tags, place, block, group)


def _choose_columns(task: TaskConfig, place: Place, count: int, labelled: bool) -> tuple[int, int, int | None]:
    """Returns the places of words, tags and groups among so many columns."""

    def column(key: str, name: str, default: int) -> int:
        if not name.isdecimal():
            return default
        if not 1 <= int(name) <= count:
            raise BertjaxError(f"{place} has {count} columns, and task.{key}={name} is none of them; give 1 to {count}")
        return int(name) - 1

    of_words, of_tags = column("text", task.text, 0), column("label", task.label, count - 1) if labelled else -1
    if of_words == of_tags:
        remedy = "give task.text and task.label the numbers of two" if count > 1 else "add the tags"
        raise BertjaxError(f"{place} has words and tags in one column, {of_words + 1} of {count}; {remedy}")
    if labelled and task.group is not None and not task.group.isdecimal():
        raise BertjaxError(
            f"{place} has columns without names, and task.group={task.group} is no number of one; give 1 to {count}"
        )
    if labelled and count > 2:
        told = f"words are in column {of_words + 1} of {count}, and tags in column {of_tags + 1}"
        _logger.info(f"NOTICE:   {place.part.file}: {told}; task.text and task.label choose others")
    elif not labelled and count > 1:
        told = f"words are in column {of_words + 1} of {count}, one a line"
        _logger.info(f"NOTICE:   {place.part.file}: {told}; texts that are not split so can be given in .jsonl")
    return of_words, of_tags, column("group", task.group, 0) if labelled and task.group is not None else None


def _in_records(task: TaskConfig, file: Path, key: str, labelled: bool) -> Iterator[Sentence]:
    for place, record in read_records(str(file), columns_of(task, labelled=labelled), key):
        value = in_field(record, task.text)
        if not labelled and isinstance(value, str):
            value = [value]
        words = _texts(value, place, "word", task.text, "task.text")
        if not labelled:
            yield Sentence(words, (), place, record)
            continue
        if not words:
            raise BadError(f"{place} has no words in {task.text!r} (task.text)", "empty")
        value = in_field(record, task.label)
        if isinstance(value, list):
            value = [json.dumps(tag) if isinstance(tag, bool | int | float) else tag for tag in value]
        tags = _texts(value, place, "tag", task.label, "task.label")
        if empty := [number for number, tag in enumerate(tags, 1) if not tag.strip()]:
            raise BadError(f"{place} has an empty tag, number {empty[0]}, in {task.label!r} (task.label)", "empty")
        if len(words) != len(tags):
            raise BadError(
                f"{place} has {len(words)} words in {task.text!r} (task.text) and {len(tags)} tags in {task.label!r} "
                "(task.label), where each word has one",
                "lengths",
            )
        group = None if task.group is None else str(in_field(record, task.group))
        yield Sentence(words, tuple(tag.strip() for tag in tags), place, record, group)


def _texts(value: Any, place: Place, what: str, field: str, key: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadError(f"{place} has no list of {what}s in {field!r} ({key}), but {_short(value)}", "no list")
    texts = [as_text(text, field, key) for text in value]
    for number, text in enumerate(texts, 1):
        if isinstance(text, BadError):
            raise BadError(f"{what} {number} in {place} {text}", text.reason)
    return tuple(text for text in texts if isinstance(text, str))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def sorted_sentences(task: TaskConfig, path: str, key: str) -> list[Sentence]:
    """Returns the tagged sentences of files, in an order that the files' does not change.

    Raises:
      BertjaxError: there is none; or as of `read_sentences`.
    """
    sentences = list(read_sentences(task, path, key))
    if not sentences:
        raise BertjaxError(f"{path} has no sentences; give {key} tagged ones")
    if task.group is None:  # a file of one document, which some begin with such a line, need not stay whole
        documents: dict[str, set[str | None]] = {}
        for one in sentences:
            documents.setdefault(one.place.part.file, set()).add(one.group)
        sentences = [one if len(documents[one.place.part.file]) > 1 else one._replace(group=None) for one in sentences]
    return sorted(sentences, key=lambda sentence: sentence.key)


def learn_tags(sentences: Sequence[Sentence]) -> Tags:
    """Returns the tags that sentences have: as numbers are in order where all are whole ones, else as letters are.

    Raises:
      BertjaxError: there is but one.
    """
    found = {tag for sentence in sentences for tag in sentence.tags}
    if len(found) == 1:
        raise BertjaxError(
            f"every word of {len(sentences):,} sentences has the tag {next(iter(found))!r}; give two tags or more"
        )
    whole = all(tag.removeprefix("-").isdecimal() for tag in found)
    names = sorted(found, key=lambda tag: (int(tag) if whole else 0, tag))
    return Tags(tuple(names), learn_scheme(sentence.tags for sentence in sentences))


def check_tags(sentences: Sequence[Sentence], tags: Tags) -> None:
    """Raises BertjaxError where a word has another tag than these."""
    there = set(tags.names)
    for sentence in sentences:
        for number, tag in enumerate(sentence.tags):
            if tag not in there:
                known = ", ".join(tags.names[:20]) + (", ..." if len(tags.names) > 20 else "")
                raise BertjaxError(
                    f"{sentence.place_of(number)} has the tag {tag!r}, which no sentence to learn from has; they have "
                    f"{known}"
                )


def split_sentences(sentences: Sequence[Sentence], share: float, seed: int) -> tuple[list[Sentence], list[Sentence]]:
    """Returns the sentences to learn from and those to hold out, the share of all, at random.

    Those of one document or group stay on one side; where there are no groups, those of the same words. Each tag keeps
    something to learn from.

    Args:
      sentences: sorted.
      seed: another one, another split.
    """
    groups: dict[Any, list[Sentence]] = {}
    for sentence in sentences:
        groups.setdefault(sentence.words if sentence.group is None else sentence.group, []).append(sentence)
    # In a random order, which neither that of the sentences nor what groups are called changes.
    by_content: dict[bytes, list[Sentence]] = {}
    for group in groups.values():
        of_group = b"".join(sorted(sentence.key for sentence in group))
        by_content.setdefault(hashlib.blake2b(of_group, key=str(seed).encode()).digest(), []).extend(group)
    left = round(share * len(sentences))
    left_to_learn = Counter(tag for group in by_content.values() for tag in _tags_of(group))
    held_out: set[int] = set()
    for content in sorted(by_content):
        group = by_content[content]
        tags = _tags_of(group)
        if len(group) <= left and all(left_to_learn[tag] > 1 for tag in tags):
            held_out.update(map(id, group))
            left -= len(group)
            left_to_learn.subtract(tags)
    return [one for one in sentences if id(one) not in held_out], [one for one in sentences if id(one) in held_out]


def _tags_of(group: Sequence[Sentence]) -> set[str]:
    return {tag for sentence in group for tag in sentence.tags}


class Read(NamedTuple):
    """A sentence as a model reads it."""

    ids: list[int]  # with special tokens
    words: list[int]  # the number of the word that each is a piece of, from 0; -1 of special tokens
    first_tokens: list[int]  # of each word the place of its first piece; -1 where it is not read
    num_cut: int  # words that are not, as there are too many


def read_words(texts: Sequence[Sequence[str]], tokenizer: Tokenizer, max_length: int) -> Iterator[Read]:
    """Yields each list of words as pieces; what is beyond `max_length` tokens, special ones included, is cut."""
    for first in range(0, len(texts), _AT_ONCE):
        some = [list(words) for words in texts[first : first + _AT_ONCE]]
        for words, pieces in zip(some, tokenizer.encode_words(some), strict=True):
            yield read_pieces(pieces, len(words), tokenizer.template, max_length)


def read_pieces(pieces: Pieces, num_words: int, template: Template, max_length: int) -> Read:
    """Returns the pieces of so many words as a model reads them; `read_words` says of how many tokens."""
    frame = template.single
    room = max_length - frame.num_special
    kept = template.shortened(list(enumerate(pieces.ids)), min(room, len(pieces.ids)))
    ids, of_words = [], []
    for place in frame.places:
        ids += [number for _, number in kept] if place == A else [place]
        of_words += [pieces.words[at] for at, _ in kept] if place == A else [-1]
    first_tokens, begin = [-1] * num_words, frame.places.index(A)
    before = [-1, *pieces.words]
    firsts = {at for at, word in enumerate(pieces.words) if word >= 0 and before[at] != word}
    for place, (at, _) in enumerate(kept, begin):
        if at in firsts:
            first_tokens[pieces.words[at]] = place
    num_read = num_words - first_tokens.count(-1)
    return Read(ids, of_words, first_tokens, len(firsts) - num_read)


def make_tagged(
    sentences: Sequence[Sentence],
    tags: Tags,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    label_pieces: Literal["first", "all"],
    name: str,
) -> TaggedExamples:
    """Returns the sentences as a model reads them; words that are not read are told.

    Args:
      max_length: tokens that are read of a sentence, special ones included.
      label_pieces: which pieces of a word have its tag. Of all, those inside a word with B- have the tag with I-, if
        there is one.
      name: what messages call them.

    Raises:
      BertjaxError: a sentence has another tag than these.
    """
    check_tags(sentences, tags)
    numbers = {tag: number for number, tag in enumerate(tags.names)}
    inside = {number: numbers[tags.inside(tag)] for tag, number in numbers.items()}
    of_words = [[numbers[tag] for tag in sentence.tags] for sentence in sentences]
    all_read = list(read_words([one.words for one in sentences], tokenizer, max_length))
    for sentence, read in zip(sentences, all_read, strict=True):
        if not read.ids:
            raise BertjaxError(f"{sentence.place} has no tokens, and this model has no special ones; leave it out")
    num_cut = sum(read.num_cut for read in all_read)
    num_without = sum(read.first_tokens.count(-1) for read in all_read) - num_cut
    for count, why in (
        (num_cut, f"are beyond data.max_length={max_length} tokens of their sentence"),
        (num_without, "have no characters that the vocabulary can read"),
    ):
        if count:
            _logger.info(f"NOTICE:   {count:,} words of {name} {why}: they are not read, and count as missed")
    digest = hashlib.blake2b(b"".join(sentence.key for sentence in sentences), digest_size=16)
    starts_n = np.concatenate(([0], np.cumsum([len(read.ids) for read in all_read]))).astype(np.int64)
    first_tokens = [
        place if place < 0 else start + place
        for start, read in zip(starts_n.tolist(), all_read, strict=False)
        for place in read.first_tokens
    ]
    labels = [
        _label(of_sentence, read, place, word, inside, label_pieces)
        for of_sentence, read in zip(of_words, all_read, strict=True)
        for place, word in enumerate(read.words)
    ]
    return TaggedExamples(
        name,
        digest.hexdigest(),
        np.fromiter(itertools.chain.from_iterable(read.ids for read in all_read), np.int32),
        starts_n,
        np.array(labels, np.int32),
        np.concatenate(([0], np.cumsum([len(sentence.words) for sentence in sentences]))).astype(np.int64),
        np.array(first_tokens, np.int64),
        np.fromiter(itertools.chain.from_iterable(of_words), np.int32),
    )


def _label(tags_w: Sequence[int], read: Read, place: int, word: int, inside: dict[int, int], label_pieces: str) -> int:
    """Returns the number of the tag that a token teaches, of a word of its sentence."""
    if word < 0:
        return NO_TAG
    if place == read.first_tokens[word]:
        return tags_w[word]
    return inside[tags_w[word]] if label_pieces == "all" else NO_TAG
