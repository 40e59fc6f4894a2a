"""The vectors of a file that is not finished: a folder OUT.partial, which survives a kill at any time.

Its state.json tells how many of the vectors count, of which lines they are, and what else they depend on.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.errors import BertjaxError
from bertjax.inference.engine import Vectors
from bertjax.inference.rows import Window
from bertjax.inference.text_lines import Place
from bertjax.inference.vector_files import HEADER, KEEPING, RawVectors
from bertjax.storage.atomic import atomic_write
from bertjax.storage.locks import locked

logger = logging.getLogger(__name__)

Writer = Callable[[RawVectors, Path], None]
"""Puts rows into a file, whole or not at all; called again after an error or a kill, it goes on."""


class PartialVectors:
    """The folder OUT.partial: the vectors so far, and the place in the input up to which they are.

    Args:
      out: the file to be.
      settings: what the vectors depend on beside the texts; `pooling` is one of them.
      size: numbers in a vector.
      write: puts the rows into the file in the end.
    """

    def __init__(self, out: Path, settings: dict[str, Any], size: int, write: Writer):
        self.folder, self.place = out.with_name(f"{out.name}.partial"), Place()
        self._out, self._settings, self._size, self._write = out, settings, size, write
        self._num_rows = self._record_bytes = 0
        self._vectors, self._ends, self._records = (self.folder / name for name in ("vectors", "ends", "records"))
        self._state, self._lock = self.folder / "state.json", self.folder / "lock"

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Begins the folder or goes on with it, and keeps other processes out.

        Raises:
          BertjaxError: what is there was made otherwise or is damaged, is in use, or cannot be written.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            with locked(self._lock, instead="give another --out"):
                self._begin_or_resume()
                try:
                    yield
                finally:
                    if self.folder.is_dir() and not self.place.lines:
                        shutil.rmtree(self.folder)
        except OSError as error:
            remedy = "mend that and give the same command again, or give another --out"
            what = f"cannot write to {error.filename or self.folder}: {error.strerror}; {remedy}"
            raise BertjaxError(what) from error
        except KeyboardInterrupt:
            kept = f"{self.place.lines:,} texts are done and kept in {self.folder}; the same command goes on from there"
            logger.info("stopped: %s", kept if self.place.lines else "nothing is done yet")
            raise

    def _begin_or_resume(self) -> None:
        if not self._state.exists() or not self._vectors.exists():  # killed before the first line, or after the last
            self._state.unlink(missing_ok=True)
            self._vectors.write_bytes(bytes(HEADER))
            self._ends.write_bytes(b"")
            self._records.write_bytes(b"")
            return
        damaged = BertjaxError(f"{self.folder} is not as it was written; remove it to begin anew")
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            place, num_rows, settings = Place(*state["place"]), state["rows"], dict(state["asked"])
            record_bytes = state["record_bytes"]
            if not all(type(number) is int and number > 0 for number in (place.lines, num_rows, record_bytes + 1)):
                raise damaged
        except (ValueError, TypeError, KeyError, RecursionError):
            raise damaged from None
        for key, value in self._settings.items():
            if settings.get(key) != value:
                what = "another model" if key == "model" else f"{key}={settings.get(key)}, not {value}"
                raise BertjaxError(
                    f"{self.folder} holds vectors made with {what}; go on as it was begun, give another --out, "
                    "or remove it to begin anew"
                )
        sizes = {self._vectors: HEADER + 4 * num_rows * self._size}
        sizes |= {self._ends: 8 * place.lines} if self._several else {}
        sizes |= {self._records: record_bytes}
        for path, size in sizes.items():
            if not path.exists() or path.stat().st_size < size:
                raise damaged
            os.truncate(path, size)  # what a kill left of the next window
        self.place, self._num_rows, self._record_bytes = place, num_rows, record_bytes

    @property
    def _several(self) -> bool:
        return self._settings["pooling"] == "tokens"

    def append(self, vectors: Vectors, window: Window) -> None:
        """Writes a window's vectors, which count from then on.

        Args:
          vectors: as the encoder makes them.
          window: what they are of.

        Raises:
          OSError: they cannot be written.
        """
        if isinstance(vectors, list):
            counts = np.array([len(of_text) for of_text in vectors], np.int64)
            _append(self._ends, [(self._num_rows + np.cumsum(counts)).astype("<i8")])
            self._num_rows += int(counts.sum())
        else:
            self._num_rows += len(vectors)
        _append(self._vectors, vectors if isinstance(vectors, list) else [vectors])
        _append(self._records, [row.record for row in window.rows])
        self._record_bytes += sum(len(row.record) for row in window.rows)
        self.place = window.end
        state = {"asked": self._settings, "place": self.place, "rows": self._num_rows}
        with atomic_write(self._state) as file:
            json.dump(state | {"record_bytes": self._record_bytes}, file, indent=1)

    def finish(self) -> str:
        """Puts the finished file in its place, removes the folder, and returns what is in the file.

        Raises:
          BertjaxError: there is such a file by now.
          OSError: it cannot be written.
        """
        if os.path.lexists(self._out):
            raise BertjaxError(f"{self._out} exists by now and is left as it is; move it and give the same command")
        ends = self._ends if self._several else None
        records = self._records if self._out.suffix in KEEPING else None
        self._write(RawVectors(self._vectors, self._num_rows, self._size, self.place.lines, ends, records), self._out)
        shutil.rmtree(self.folder)
        return f"float32 [{self._num_rows}, {self._size}]"


def _append(path: Path, parts: Iterable[np.ndarray | bytes]) -> None:
    with open(path, "ab") as file:
        for part in parts:
            file.write(part if isinstance(part, bytes) else np.ascontiguousarray(part).data)
        file.flush()
        os.fsync(file.fileno())
