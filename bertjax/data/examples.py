"""Labelled examples: rows of the user's files as token ids and numbers, and which of them are held out."""

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import TaskConfig
from bertjax.data.reader import Item, Reader
from bertjax.data.sources.files import find_files
from bertjax.data.sources.formats import LAYOUT, parts_of
from bertjax.data.sources.lines import BadError, kind_of
from bertjax.data.sources.records import Place, as_text, in_field, records
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

_logger = logging.getLogger(__name__)

_AT_ONCE = 8192  # texts that are split together

Label = str | tuple[str, ...] | float
"""What an example is labelled with: a label, several or none, or a number."""


class Row(NamedTuple):
    """A labelled text or pair, as a file has it."""

    item: Item
    label: Label
    place: Place
    group: str | None = None  # what it stays together with, beside rows of its text

    @property
    def key(self) -> bytes:
        """Sixteen bytes of what it says: rows that differ in nothing have one."""
        label = self.label if isinstance(self.label, str) else repr(self.label)
        return digest_of(*self.item, label, *(() if self.group is None else (self.group,)))


class Examples(NamedTuple):
    """n labelled sequences of tokens, in an order that their files' does not change."""

    name: str
    digest: str
    ids: np.ndarray  # int32, those of all, one after the other
    starts_n: np.ndarray  # where each begins in them, and at last where the last one ends
    len_a_n: np.ndarray  # of the first segment, special tokens included
    labels_n: np.ndarray  # what is learned of each: a label's number, int32 [n]; or float32 [n] or [n, c]

    @property
    def lengths_n(self) -> np.ndarray:
        """Number of tokens, special ones included."""
        return np.diff(self.starts_n)


def read_records(
    path: str, needed: Mapping[str, str], key: str, columns: Sequence[str] | None = None
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yields every record of the files, and its place.

    Args:
      path: as `find_files` takes it.
      needed: columns that a file must have, each with the key of the configuration that names it.
      key: the option that gave the path.
      columns: as `TaskConfig` has them, of tables that do not name them.

    Raises:
      BertjaxError: a file or a row cannot be read, or has more fields than columns.
    """
    for file in find_files(path, key):
        if kind_of(file).format == "text":
            raise BertjaxError(
                f"{file} has no columns; give {key} files of .csv, .tsv, .jsonl, .json, .parquet or .arrow"
            )
        yield from records_of_file(file, needed, columns or ())


def records_of_file(
    file: Path, needed: Mapping[str, str], columns: Sequence[str] = (), *, only: Mapping[str, str] | None = None
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yields every record of a file, and its place.

    Args:
      needed, columns: as of `read_records`, and so are errors.
      only: columns of which others need not come, each with the key that names it; by default all come.
    """
    try:
        for part in parts_of(file, LAYOUT, 1 << 40):
            for place, record in records(part, only, columns):
                if isinstance(record, BadError):
                    raise BadError(f"{place} {record}", record.reason)
                if isinstance(record, dict) and None in record:
                    raise BertjaxError(
                        f"{place} has {len(record[None])} fields more than there are columns; put quotation marks "
                        "around a field with a comma in it, or leave them out"
                    )
                check_columns(place, record, needed)
                yield place, record
    except BadError as error:
        raise BertjaxError(f"{error}; mend it, or leave it out") from None


def check_columns(place: Place, record: Any, needed: Mapping[str, str]) -> None:
    """Raises BertjaxError where a record has nothing in a column; the arguments are those of `read_records`."""
    for column, name in needed.items():
        if in_field(record, column) is None:
            there = f"but in {', '.join(record)}" if isinstance(record, dict) else "but is no record"
            raise BertjaxError(
                f"{place} has nothing in the column {column!r} ({name}), {there}; mend the row, or name another column"
            )


def columns_of(task: TaskConfig, *, labelled: bool = True) -> dict[str, str]:
    """Returns the columns that the task needs, each with the key that names it."""
    named = {"task.text": task.text, "task.pair": task.pair}
    named |= {"task.label": task.label, "task.group": task.group} if labelled else {}
    return {column: key for key, column in named.items() if column is not None}


def item_of(task: TaskConfig, place: Place, record: Mapping[str, Any]) -> Item:
    """Returns the text of a record, or its pair of them. Raises BertjaxError where one is no text."""

    def text(column: str, key: str) -> str:
        value = as_text(in_field(record, column), column, key)
        if isinstance(value, BadError):
            raise BertjaxError(f"{place} {value}; mend the row, or name another column")
        return value

    return text(task.text, "task.text"), None if task.pair is None else text(task.pair, "task.pair")


def read_rows(task: TaskConfig, path: str, key: str, read_label: Callable[[Any], Label | BadError]) -> list[Row]:
    """Returns the labelled rows of files, in an order that the files' does not change.

    Args:
      path, key: as of `read_records`.
      read_label: makes a label of what is in the column for it, or says why it cannot.

    Raises:
      BertjaxError: there is no row, or one cannot be read or has no label.
    """
    rows = []
    for place, record in read_records(path, columns_of(task), key, task.columns):
        label = read_label(in_field(record, task.label))
        if isinstance(label, BadError):
            raise BertjaxError(f"{place} {label}")
        item = item_of(task, place, record)
        # Passages are ranked among those of their query: it is held out whole.
        group = item[0] if task.kind == "rerank" else None
        rows.append(Row(item, label, place, group if task.group is None else str(in_field(record, task.group))))
    if not rows:
        raise BertjaxError(f"{path} has no rows; give {key} labelled ones")
    return sorted(rows, key=lambda row: row.key)


def split(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Returns the rows to learn from and those to hold out, of each label the share, at random.

    Rows of one text stay on one side, and so do those of one group where rows have groups. Of each label a text, or a
    group, stays to learn from; numbers are not labels.

    Args:
      rows: sorted, as `read_rows` returns them.
      seed: another one, another split.
    """
    together: dict[bytes, list[Row]] = {}  # in a random order, which that of the rows does not change
    for row in rows:
        key = digest_of(str(seed), *(row.item if row.group is None else (row.group,)))
        together.setdefault(key, []).append(row)
    kinds = {key: Counter(_stratum(row.label) for row in some) for key, some in together.items()}
    counts, left_to_learn = Counter(_stratum(row.label) for row in rows), Counter[Label]()
    for kind in kinds.values():
        left_to_learn.update(kind.keys())
    left = {label: round(share * count) for label, count in counts.items()}
    held_out: set[bytes] = set()
    for key in sorted(together):
        kind = kinds[key]
        if all(count <= left[label] and left_to_learn[label] > 1 for label, count in kind.items()):
            held_out.add(key)
            for label, count in kind.items():
                left[label] -= count
                left_to_learn[label] -= 1
    learned = {id(row) for key, some in together.items() if key not in held_out for row in some}
    return [row for row in rows if id(row) in learned], [row for row in rows if id(row) not in learned]


def _stratum(label: Label) -> Label:
    return 0.0 if isinstance(label, float) else label


def make_examples(
    rows: Sequence[Row], labels_n: np.ndarray, tokenizer: Tokenizer, *, max_length: int, name: str
) -> Examples:
    """Returns the rows as a model reads them; what is longer than `max_length` tokens is shortened, which is logged.

    An empty text is read as one.

    Args:
      labels_n: what is learned of each, int32 or float32 [n, ...].
      name: what messages call them.
    """
    reader = Reader(tokenizer, max_length, truncate=True)
    items = [row.item for row in rows]
    read = [
        tokens
        for first in range(0, len(items), _AT_ONCE)
        for tokens in reader.read_all(items[first : first + _AT_ONCE], lambda number: str(rows[number].place))
    ]
    if reader.num_shortened:
        share = reader.num_shortened / len(rows)
        _logger.info(f"NOTICE:   {share:.1%} of {name} are shortened to data.max_length={max_length} tokens")
    if empty := sum(not all(part is None or part.strip() for part in item) for item in items):
        _logger.info(f"NOTICE:   {empty:,} of {name} have an empty text, and are read as such")
    starts_n = np.concatenate(([0], np.cumsum([len(tokens.ids) for tokens in read]))).astype(np.int64)
    digest = hashlib.blake2b(b"".join(row.key for row in rows), digest_size=16)
    return Examples(
        name,
        digest.hexdigest(),
        np.fromiter(itertools.chain.from_iterable(tokens.ids for tokens in read), np.int32),
        starts_n,
        np.array([tokens.len_a for tokens in read], np.int32),
        labels_n,
    )


def named(path: str) -> str:
    """Returns what messages call the examples of a path: a file's name, or all of a pattern."""
    return Path(path).name or path


def digest_of(*texts: str | None) -> bytes:
    """Returns sixteen bytes that tell texts, or their absence, from any others."""
    parts = (b"" if text is None else b"\1" + text.encode("utf-8", "surrogatepass") for text in texts)
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).digest()
