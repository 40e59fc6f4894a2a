"""Tables of vectors in Parquet, with what was kept of each row beside its vector."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bertjax.inference.vector_files import HEADER, RawVectors
from bertjax.storage.atomic import atomic_write

_NUMBERS_PER_GROUP = 2**22  # in a row group, which is held in memory


def write_parquet(raw: RawVectors, out: Path) -> None:
    """Writes the columns of the records, then `vector`, a list of one size; or `vectors`, a list of those.

    Columns have the types of JSON, in 64 bits; of one whose values are of several kinds the JSON itself is written.

    Raises:
      OSError: it cannot be written; the rows stay as they are.
    """
    import pyarrow
    import pyarrow.parquet

    vector = pyarrow.list_(pyarrow.float32(), raw.hidden_size)
    column = ("vector", vector) if raw.ends is None else ("vectors", pyarrow.list_(vector))
    types = _types_of(raw)
    schema = pyarrow.schema([*((name, type_ or pyarrow.string()) for name, type_ in types.items()), column])
    with (
        atomic_write(out, binary=True) as whole,
        open(raw.path, "rb") as file,
        pyarrow.parquet.ParquetWriter(whole, schema) as writer,
    ):
        file.seek(HEADER)
        for counts, records in _groups_of_records(raw):
            numbers = np.fromfile(file, "<f4", int(counts.sum()) * raw.hidden_size)
            array = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(numbers), type=vector)
            if raw.ends is not None:
                offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
                array = pyarrow.ListArray.from_arrays(pyarrow.array(offsets), array)
            kept = [_column([record.get(name) for record in records], type_) for name, type_ in types.items()]
            writer.write_table(pyarrow.Table.from_arrays([*kept, array], schema=schema))


def _types_of(raw: RawVectors) -> dict[str, Any]:
    """Returns the type of each column of the records, in the order in which they come; None where it has several."""
    import pyarrow

    types: dict[str, Any] = {}
    for _, records in _groups_of_records(raw):
        for name in dict.fromkeys(itertools.chain.from_iterable(records)):
            try:
                here = pyarrow.array([record.get(name) for record in records]).type
                both = [pyarrow.schema([("", type_)]) for type_ in (types.get(name, here), here) if type_ is not None]
                merged = pyarrow.unify_schemas(both, promote_options="permissive").field(0).type
            except (pyarrow.ArrowException, OverflowError):
                merged = None
            several = name in types and types[name] is None
            types[name] = None if several or not _can_be_written(merged) else merged
    return types


def _can_be_written(type_: Any) -> bool:
    """Returns whether Parquet has such columns: not of structs without fields."""
    import pyarrow

    if type_ is None or (pyarrow.types.is_struct(type_) and not type_.num_fields):
        return False
    return all(_can_be_written(type_.field(number).type) for number in range(type_.num_fields))


def _column(values: Sequence[Any], type_: Any) -> Any:
    import pyarrow

    if type_ is None:
        return pyarrow.array([None if value is None else json.dumps(value) for value in values], pyarrow.string())
    if pyarrow.types.is_floating(type_):  # whole numbers among others
        return pyarrow.array([None if value is None else float(value) for value in values], type_)
    return pyarrow.array(values, type_)


def _groups_of_records(raw: RawVectors) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
    """Yields how many rows each text has, and the texts' records, for as many texts as make a row group."""
    if raw.records is None:
        yield from ((counts, []) for counts in _groups(raw))
        return
    with open(raw.records, "rb") as file:
        for counts in _groups(raw):
            lines: Iterable[bytes] = itertools.islice(file, len(counts))
            yield counts, [json.loads(line) for line in lines]


def _groups(raw: RawVectors) -> Iterator[np.ndarray]:
    """Yields how many rows each text has, for as many texts as make a row group."""
    most = max(1, _NUMBERS_PER_GROUP // raw.hidden_size)
    if raw.ends is None:
        for start in range(0, raw.num_texts, most):
            yield np.ones(min(most, raw.num_texts - start), np.int64)
        return
    with open(raw.ends, "rb") as file:
        yield from _groups_of(file, raw.num_texts, most)


def _groups_of(file: BinaryIO, texts: int, most: int) -> Iterator[np.ndarray]:
    done = last = 0
    while done < texts:
        file.seek(8 * done)
        ends = np.fromfile(file, "<i8", min(most, texts - done))
        ends = ends[: max(1, int(np.searchsorted(ends, last + most, "right")))]
        yield np.diff(ends, prepend=last)
        done, last = done + len(ends), int(ends[-1])
