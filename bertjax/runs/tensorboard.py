"""TensorBoard's event files, written with tensorboardX, an optional install."""

import importlib.util
import time
from pathlib import Path
from typing import Any

from bertjax.errors import BertjaxError


class Events:
    """Numbers of steps as curves. Each process writes a file of its own, which it makes for its first number.

    Raises:
      BertjaxError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path):
        if importlib.util.find_spec("tensorboardX") is None:
            raise BertjaxError("logging.tensorboard=true needs tensorboardX: pip install 'bertjax[tensorboard]'")
        self._folder = folder
        self._writer: Any = None

    def append(self, record: dict[str, Any]) -> None:
        """Adds each number of a line of metrics to its curve, `train/...` or `held_out/...`. Raises OSError."""
        values = [
            {"tag": _tag(name), "simple_value": value}
            for name, value in record.items()
            if name != "step" and value is not None
        ]
        self._write(step=record["step"], summary={"value": values})

    def drop_after(self, step: int) -> None:
        """Hides what was written of later steps, which are made again. Raises OSError."""
        if self._folder.exists():
            self._write(step=step + 1, session_log={"status": 1})  # START, at which TensorBoard forgets these steps

    def close(self) -> None:
        """Ends the file; whatever comes after begins another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, **event: Any) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event

        if self._writer is None:
            self._folder.mkdir(exist_ok=True)
            number = len(list(self._folder.iterdir()))  # two processes may begin in the same second
            self._writer = EventsWriter(str(self._folder / "events"), f".{number}")
        self._writer.write_event(Event(wall_time=time.time(), **event))
        self._writer.flush()


def _tag(name: str) -> str:
    return f"held_out/{name.removeprefix('held_out_')}" if name.startswith("held_out_") else f"train/{name}"
