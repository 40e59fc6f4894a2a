"""Tuples of texts to learn embeddings from: an anchor, its positive, perhaps hard negatives, or a pair with a score."""

import hashlib
import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import TaskConfig
from bertjax.data.examples import digest_of, read_records
from bertjax.data.reader import Reader
from bertjax.data.sources.files import find_files
from bertjax.data.sources.formats import LAYOUT, parts_of
from bertjax.data.sources.lines import BadError, kind_of, lines
from bertjax.data.sources.records import Place, as_text, in_field
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

_logger = logging.getLogger(__name__)

_LONGEST = 1 << 26  # bytes of a line
_AT_ONCE = 8192  # texts that are split together


class TupleRow(NamedTuple):
    """The texts of an example, as a file has them: its anchor, its positive, and hard negatives."""

    texts: tuple[str, ...]
    score: float | None  # how alike the two texts of a pair are, the higher the more; None where none is told
    place: Place
    group: str | None = None  # what it stays together with when some are held out

    @property
    def key(self) -> bytes:
        """Sixteen bytes of what it says: rows that differ in nothing have one."""
        return digest_of(*self.texts, repr(self.score), self.group)


class Tuples(NamedTuple):
    """n examples of r texts at most, in an order that their files' does not change; texts that read alike are one."""

    name: str
    digest: str
    ids: np.ndarray  # int32, those of all m texts, one after the other
    starts_m: np.ndarray  # where each begins in them, and at last where the last one ends
    texts_nr: np.ndarray  # int, the number of each text; -1 where an example has no further hard negative
    scores_n: np.ndarray  # float32, 0 where none are told

    @property
    def lengths_m(self) -> np.ndarray:
        """Number of tokens of each text, special ones included."""
        return np.diff(self.starts_m)


def read_tuples(task: TaskConfig, path: str, key: str) -> list[TupleRow]:
    """Returns the examples of files, in an order that the files' does not change.

    A column without a second text (task.pair=null), and a plain text file, line by line, has texts alone: each is its
    own positive, as unsupervised SimCSE has it (Gao et al. 2021, arXiv:2104.08821). Empty hard negatives are none.

    Args:
      path: as `find_files` takes it.
      key: the option that gave the path.

    Raises:
      BertjaxError: there is no row, or one cannot be read or lacks something; the message names it.
    """
    kinds = {kind_of(file).format == "text" for file in find_files(path, key)}
    if len(kinds) > 1:
        raise BertjaxError(f"{path} has plain text and tables or records; give {key} files of one sort")
    if kinds == {True}:
        if task.loss == "cosent":
            raise BertjaxError(
                f"{path} is plain text without scores, which task.loss=cosent needs; give pairs with some"
            )
        rows = list(_lines(path, key))
    else:
        needed = {task.text: "task.text"} | ({} if task.group is None else {task.group: "task.group"})
        rows = [_row(task, place, record) for place, record in read_records(path, needed, key, task.columns)]
    if not rows:
        raise BertjaxError(f"{path} has no rows; give {key} some with texts")
    if task.loss == "cosent" and len({row.score for row in rows}) == 1:
        raise BertjaxError(
            f"every one of {len(rows):,} rows has the score {rows[0].score}, so that none is above another; give "
            "others, or task.loss=in_batch"
        )
    return sorted(rows, key=lambda row: row.key)


def _lines(path: str, key: str) -> Iterator[TupleRow]:
    for file in find_files(path, key):
        try:
            for part in parts_of(file, LAYOUT, 1 << 40):
                for number, line in lines(part, _LONGEST):
                    if text := line.strip():
                        yield TupleRow((text, text), None, Place(part, "line", number))
        except BadError as error:
            raise BertjaxError(f"{error}; mend it, or leave it out") from None


def _row(task: TaskConfig, place: Place, record: Mapping[str, Any]) -> TupleRow:
    anchor = _text(place, in_field(record, task.text), task.text, "task.text")
    group = None if task.group is None else str(in_field(record, task.group))
    if task.pair is None:
        return TupleRow((anchor, anchor), None, place, group)
    if (second := in_field(record, task.pair)) is None:
        raise BertjaxError(
            f"{place} has nothing in the column {task.pair!r} (task.pair), but in {', '.join(record)}; mend the row, "
            "name another column, or give task.pair=null to learn from single texts"
        )
    positive = _text(place, second, task.pair, "task.pair")
    if task.loss == "cosent":
        return TupleRow((anchor, positive), _score(place, in_field(record, task.label), task.label), place, group)
    return TupleRow((anchor, positive, *_negatives(task, place, record)), None, place, group)


def _text(place: Place, value: Any, column: str, key: str) -> str:
    text = as_text(value, column, key)
    if isinstance(text, BadError):
        raise BertjaxError(f"{place} {text}; mend the row, or name another column")
    if not text.strip():
        raise BertjaxError(f"{place} has an empty text in the column {column!r} ({key}); leave the row out")
    return text


def _negatives(task: TaskConfig, place: Place, record: Mapping[str, Any]) -> Iterator[str]:
    columns = [task.negatives] if isinstance(task.negatives, str) else task.negatives or []
    for column in columns:
        found = in_field(record, column)
        if found is None and column.partition(".")[0] not in record:
            raise BertjaxError(
                f"{place} has no column {column!r} (task.negatives), but {', '.join(record)}; mend the row, or name "
                "another column"
            )
        for value in found if isinstance(found, list) else [found]:
            if value is not None and value != "":
                yield _text(place, value, column, "task.negatives")


def _score(place: Place, value: Any, column: str) -> float:
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise BertjaxError(
            f"{place} has no number in {column!r} (task.label), but {value!r}; give a score, such as 0.8"
        )
    return score


def split_tuples(rows: Sequence[TupleRow], share: float, seed: int) -> tuple[list[TupleRow], list[TupleRow]]:
    """Returns the rows to learn from and those to hold out, the share of them, at random.

    Rows with a text in common, as anchor or positive, or of one group, stay on one side, and so do rows that such ones
    join. Hard negatives do not join rows: those that are mined are other rows' positives.

    Args:
      rows: sorted, as `read_tuples` returns them.
      seed: another one, another split.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers: dict[tuple[str, bool], int] = {}  # of texts and of groups

    def number(name: str, *, is_text: bool = True) -> int:
        return numbers.setdefault((name, is_text), len(numbers))

    joined = [(number(row.texts[0]), number(row.texts[1])) for row in rows]
    joined += [(number(row.texts[0]), number(row.group, is_text=False)) for row in rows if row.group is not None]
    ends_2 = tuple(np.array(joined).T)
    graph = coo_array((np.ones(len(joined)), ends_2), shape=(len(numbers), len(numbers)))
    group_n = connected_components(graph, directed=False)[1][ends_2[0][: len(rows)]]
    first_of: dict[int, bytes] = {}  # rows are sorted, so that a group's first one is the same in any order of the file
    for group, row in zip(group_n.tolist(), rows, strict=True):
        first_of.setdefault(group, digest_of(str(seed), *row.texts))
    sizes, left, held_out = np.bincount(group_n), round(share * len(rows)), set()
    for group in sorted(first_of, key=first_of.__getitem__):
        if sizes[group] <= left:
            held_out.add(group)
            left -= sizes[group]
    inside = [group in held_out for group in group_n.tolist()]
    return list(itertools.compress(rows, [not one for one in inside])), list(itertools.compress(rows, inside))


def make_tuples(
    rows: Sequence[TupleRow], tokenizer: Tokenizer, *, max_length: int, name: str, prompt: str = ""
) -> Tuples:
    """Returns the rows as a model reads them; what is longer than `max_length` tokens is shortened, which is logged.

    Args:
      name: what messages call them.
      prompt: put before each text.
    """
    places: dict[str, int] = {}
    for row in rows:
        for text in row.texts:
            places.setdefault(text, len(places))
    reader, texts = Reader(tokenizer, max_length, truncate=True), [f"{prompt}{text}" for text in places]
    number_of: dict[tuple[int, ...], int] = {}  # of texts that read the same, the first's
    number_m: list[int] = []
    for first in range(0, len(texts), _AT_ONCE):
        items = [(text, None) for text in texts[first : first + _AT_ONCE]]
        for tokens in reader.read_all(items, lambda number: f"text {number} of {name}"):
            number_m.append(number_of.setdefault(tuple(tokens.ids), len(number_of)))
    if reader.num_shortened:
        share = reader.num_shortened / len(texts)
        _logger.info(
            f"NOTICE:   {share:.1%} of the texts of {name} are shortened to data.max_length={max_length} tokens"
        )
    most = max(len(row.texts) for row in rows)
    texts_nr = np.full((len(rows), most), -1)
    for number, row in enumerate(rows):
        texts_nr[number, : len(row.texts)] = [number_m[places[text]] for text in row.texts]
    starts_m = np.concatenate(([0], np.cumsum([len(ids) for ids in number_of]))).astype(np.int64)
    digest = hashlib.blake2b(b"".join(row.key for row in rows), digest_size=16)
    return Tuples(
        name,
        digest.hexdigest(),
        np.fromiter(itertools.chain.from_iterable(number_of), np.int32),
        starts_m,
        texts_nr,
        np.array([row.score or 0.0 for row in rows], np.float32),
    )
