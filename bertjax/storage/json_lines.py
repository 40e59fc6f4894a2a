"""Files of JSON lines that grow by whole lines, whatever fails in between."""

import json
import math
import os
from pathlib import Path
from typing import Any

from bertjax.errors import BertjaxError
from bertjax.storage.atomic import atomic_write
from bertjax.storage.paths import NO_LINK


class JsonLines:
    """A file of one JSON object a line, each of which is in it altogether or not at all.

    Lines that cannot be written, as when the disk is full, are kept and go before the next ones.
    """

    def __init__(self, path: Path):
        self.path = path
        self._unwritten = b""

    def append(self, record: dict[str, Any]) -> None:
        """Adds a line.

        Args:
          record: `step` and numbers about it; those that JSON cannot carry (NaN, infinity) become null.

        Raises:
          OSError: the line cannot be written and is kept.
        """
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self._unwritten += json.dumps(record).encode("utf-8") + b"\n"
        self.flush()

    def flush(self) -> None:
        """Writes the lines that were kept. Raises OSError where they still cannot be written."""
        if not self._unwritten:
            return
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_LINK, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                # A full disk may take a part and say so only when asked to take the rest.
                rest = self._unwritten
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            except OSError as error:
                os.ftruncate(descriptor, size)
                error.filename = str(self.path)
                raise
        finally:
            os.close(descriptor)
        self._unwritten = b""

    def read(self) -> list[dict[str, Any]]:
        """Returns the whole lines, less a last one that a kill cut short. Raises BertjaxError where one is damaged."""
        if not self.path.exists():
            return []
        records = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not _is_record(record):
                raise BertjaxError(
                    f"{self.path}, line {number}, is not as it was written; put it right from a copy, "
                    "or remove the file to go on without its lines"
                )
            records.append(record)
        return records

    def rewrite(self, records: list[dict[str, Any]]) -> None:
        """Replaces all lines, those that were kept too. Raises OSError where that fails."""
        with atomic_write(self.path) as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        self._unwritten = b""


def _is_record(record: Any) -> bool:
    """Tells whether it is a step and numbers about it."""
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        return False
    return all(value is None or (type(value) in (int, float) and abs(value) < 2**63) for value in record.values())
