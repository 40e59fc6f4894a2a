"""Records of Parquet files, and of Arrow's, such as `datasets` saves; read by pyarrow, which runs no code from them."""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bertjax.data.sources.lines import BadError, Part, in_a_line, kind_of, opened, unreadable
from bertjax.errors import BertjaxError

_ROWS_AT_ONCE = 256
_RATIO, _LEAST_BOUND = 1000, 1 << 28  # characters that a file may stand for: so many times its bytes, and some always
_A_ROW = 16  # counted for a row besides
_OF_FILES = b"ARROW1"  # Arrow's files begin so, its streams, which have no index, don't


def parquet_rows(part: Part, fields: Mapping[str, str] | None) -> Iterator[tuple[int, Any]]:
    """Yields each row by column, with the number of the row in the file."""
    file = Path(part.file)
    with opened(file) as bytes_of_it, pyarrow_for(file) as arrow:
        plain = kind_of(file).compression is None
        table = arrow.parquet.ParquetFile(bytes_of_it if plain else io.BytesIO(bytes_of_it.read()))
        number = sum(table.metadata.row_group(group).num_rows for group in range(part.start))
        groups = range(part.start, table.num_row_groups if part.end is None else part.end)
        columns = _columns(file, table.schema_arrow, fields)
        batches = table.iter_batches(_ROWS_AT_ONCE, row_groups=list(groups), columns=columns)
        rows = _bounded(_rows(batches, table.schema_arrow), file)
        yield from enumerate(rows, number + 1)


def arrow_rows(part: Part, fields: Mapping[str, str] | None) -> Iterator[tuple[int, Any]]:
    """Does what `parquet_rows` does, of record batches in a stream or a file."""
    file = Path(part.file)
    with opened(file) as bytes_of_it, pyarrow_for(file) as arrow:
        is_file = bytes_of_it.read(len(_OF_FILES)) == _OF_FILES
        bytes_of_it.seek(0)
        found = arrow.ipc.open_file(bytes_of_it) if is_file else arrow.ipc.open_stream(bytes_of_it)
        columns = _columns(file, found.schema, fields)
        batches = (found.get_batch(number) for number in range(found.num_record_batches)) if is_file else found
        rows = _bounded(_rows(_in_slices(batches, columns), found.schema), file)
        yield from enumerate(rows, 1)


def _in_slices(batches: Any, columns: list[str] | None) -> Iterator[Any]:
    for batch in batches:
        some = batch if columns is None else batch.select(columns)
        some.validate(full=True)  # what a damaged file says of its buffers is followed blindly else
        yield from (some.slice(first, _ROWS_AT_ONCE) for first in range(0, some.num_rows, _ROWS_AT_ONCE))


def no_column(file: Path, field: str, key: str, names: list[str]) -> BadError:
    """Says that a file has other columns than a field's."""
    return BadError(f"{file} has no column {field!r} ({key}), but {', '.join(names)}", f"no column {field!r}")


def _columns(file: Path, schema: Any, fields: Mapping[str, str] | None) -> list[str] | None:
    """Returns the columns with these fields. Raises BadError where there is none."""
    if fields is None:
        return None
    columns = [field if field in schema.names else field.partition(".")[0] for field in fields]
    for column, (field, key) in zip(columns, fields.items(), strict=True):
        if column not in schema.names:
            raise no_column(file, field, key, schema.names)
    return columns


def _rows(batches: Any, schema: Any) -> Iterator[dict[str, Any]]:
    labels = _label_names(schema.metadata)
    for batch in batches:
        for record in batch.to_pylist():
            yield record | {
                column: _named(record[column], names) for column, names in labels.items() if column in record
            }


def _bounded(rows: Iterator[dict[str, Any]], file: Path) -> Iterator[dict[str, Any]]:
    """Raises BadError where a file stands for much more than it can hold: an index of one value may have any length."""
    size = file.stat().st_size
    room = max(_LEAST_BOUND, _RATIO * size)
    for row in rows:
        room -= _A_ROW + sum(len(value) for value in row.values() if isinstance(value, str | bytes | list))
        if room < 0:
            raise BadError(
                f"{file} has {size:,} bytes and stands for {_RATIO:,} times as many: it is no text", "no text"
            )
        yield row


def _label_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Returns what the numbers of a column mean, for each that is a ClassLabel of `datasets`, or has lists of them."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        kinds = {column: _innermost(feature) for column, feature in features.items()}
        labels = {column: kind["names"] for column, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ):  # theirs to write, and no part of the table
        return {}
    return {column: [str(name) for name in names] for column, names in labels.items() if isinstance(names, list)}


def _innermost(feature: Any) -> Any:
    while isinstance(feature, list) or "feature" in feature:
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    return feature


def _named(value: Any, names: list[str]) -> Any:
    """Returns the names of numbers; None of one that has none, as -1, which stands for no label."""
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


@contextlib.contextmanager
def pyarrow_for(file: Path) -> Iterator[Any]:
    """Lends pyarrow, whose complaints become one that names the file."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise BertjaxError(f"to read {file} pyarrow is needed: pip install 'bertjax[parquet]'") from None
    try:
        yield pyarrow
    except (*unreadable(file), pyarrow.ArrowException, MemoryError) as error:  # a damaged length is above any memory
        what, why = "Arrow" if kind_of(file).format == "arrow" else "Parquet", in_a_line(error) or "a length in it"
        raise BadError(f"{file} is no {what} file that can be read ({why})", f"no {what}") from None
