"""The figures that a run keeps of itself: metrics.jsonl, timings.jsonl and TensorBoard's events."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bertjax.config import OnFailure
from bertjax.errors import warn
from bertjax.storage.json_lines import JsonLines


class RunMetrics:
    """Lines of metrics.jsonl, which are the same whenever the run is made, and of timings.jsonl, which are not.

    Args:
      folder: the run's.
      writes: whether this process writes; of several one does, to the others writing is nothing.
      on_failure: lines that cannot be written are an error, or are kept with a warning until they can be.
      tensorboard: write TensorBoard's events too, in `folder`/tensorboard.

    Raises:
      BertjaxError: tensorboardX is asked for and not installed.
    """

    def __init__(self, folder: Path, *, writes: bool = True, on_failure: OnFailure = "stop", tensorboard: bool = False):
        self.file, self.timings_file = folder / "metrics.jsonl", folder / "timings.jsonl"
        self._lines, self._timings = JsonLines(self.file), JsonLines(self.timings_file)
        self._writes, self._on_failure = writes, on_failure
        self._events = None
        if tensorboard and writes:
            from bertjax.runs.tensorboard import Events

            self._events = Events(folder / "tensorboard")

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl; numbers that JSON cannot carry become null."""
        self._append(self._lines, record)

    def append_timings(self, record: Mapping[str, Any]) -> None:
        """Adds a line to timings.jsonl."""
        self._append(self._timings, record)

    def append_account(self, record: Mapping[str, Any]) -> None:
        """Adds a line of figures that are of the whole run to timings.jsonl; they are no curve of TensorBoard's."""
        self._append(self._timings, record, as_events=False)

    def flush(self) -> None:
        """Writes the lines of metrics.jsonl that were kept. Raises OSError where they still cannot be written."""
        self._lines.flush()

    def close(self) -> None:
        """Closes the files that stay open while metrics are written."""
        if self._events:
            self._events.close()

    def read(self) -> list[dict[str, Any]]:
        """Returns the whole lines of metrics.jsonl; a kill may have cut the last one short."""
        return self._lines.read()

    def read_timings(self) -> list[dict[str, Any]]:
        """Returns the whole lines of timings.jsonl."""
        return self._timings.read()

    def newest_evaluation(self) -> dict[str, Any]:
        """Returns the last line that holds held-out figures, an empty one where there is none."""
        return next((line for line in reversed(self.read()) if _is_evaluation(line)), {})

    def evaluation(self, best: str | None) -> dict[str, Any]:
        """Returns the line of held-out figures that tells of what a run gives: the best one by a figure, or the last.

        Args:
          best: as the run's `eval.best`.
        """
        lines = {line["step"]: line for line in self.read() if _is_evaluation(line)}
        steps = best_first(self.values(best), best) if best else list(lines)[-1:]
        return lines[steps[0]] if steps else {}

    def values(self, figure: str) -> dict[int, float | None]:
        """Returns a held-out figure after each step that was evaluated, in order; None where it was no number."""
        return {line["step"]: line.get(f"held_out_{figure}") for line in self.read() if _is_evaluation(line)}

    def has_evaluation(self, step: int) -> bool:
        """Tells whether there are held-out figures of a step."""
        return any(line["step"] == step and _is_evaluation(line) for line in self.read())

    def drop_after(self, step: int) -> None:
        """Leaves only the lines up to a step; those after it are made again when the run is resumed."""
        if self._writes:
            self._lines.rewrite([record for record in self.read() if record["step"] <= step])
            if self._events:
                self._events.drop_after(step)

    def seconds_spent(self) -> float:
        """Returns the seconds that a run with a budget has taken so far, as timings.jsonl tells."""
        return max((line.get("seconds_spent") or 0.0 for line in self.read_timings()), default=0.0)

    def _append(self, lines: JsonLines, record: Mapping[str, Any], *, as_events: bool = True) -> None:
        if not self._writes:
            return
        try:
            if self._events and as_events:
                self._events.append(dict(record))
            lines.append(dict(record))
        except OSError as error:
            if self._on_failure == "stop":
                raise
            # The same words each time: Python shows them once.
            message = f"cannot write to {lines.path}: {error.strerror}; its lines are kept until they can be written"
            warn(message, stacklevel=3)


def best_first(values: Mapping[int, float | None], figure: str) -> list[int]:
    """Returns the steps whose value is a number, the best first; of equal ones the earliest.

    Args:
      values: of a held-out figure, by step.
      figure: its name; the less of a loss or an error the better, the more of anything else.
    """
    sign = 1 if is_better_less(figure) else -1
    there = {step: value for step, value in values.items() if value is not None and math.isfinite(value)}
    return sorted(there, key=lambda step: (sign * there[step], step))


def is_better_less(figure: str) -> bool:
    """Returns whether a figure is the better the less there is of it, as its name tells."""
    return any(word in ("loss", "error", "mse", "mae", "rmse") for word in re.split(r"[\W_]+", figure.lower()))


def _is_evaluation(line: Mapping[str, Any]) -> bool:
    return any(name.startswith("held_out_") for name in line)


class Figures(NamedTuple):
    """Loss and accuracy of a head, under the name that people know it by."""

    name: str
    loss: float
    accuracy: float | None  # None of a head that tells numbers

    def described(self, *, digits: int = 3) -> str:
        """Returns them in words."""
        accuracy = "" if self.accuracy is None else f", accuracy {self.accuracy:.{digits - 2}%}"
        return f"{self.name} loss {self.loss:.{digits}f}{accuracy}"


def figures(means: Mapping[str, Any], heads: Mapping[str, str], prefix: str = "") -> list[Figures]:
    """Returns the figures of each head that learns, unless it had nothing to predict.

    Args:
      means: `{head}_loss`, and `{head}_accuracy` where it has one, of each head, such as a line of metrics.jsonl.
      heads: what people call each head, by its name in `means`.
      prefix: what the names in `means` begin with, such as "held_out_".
    """
    return [
        Figures(name, means[f"{prefix}{head}_loss"], means.get(f"{prefix}{head}_accuracy"))
        for head, name in heads.items()
        if f"{prefix}{head}_loss" in means
    ]
