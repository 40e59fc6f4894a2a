"""What examples are labelled with: as files have it, and as the numbers that a model learns."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import TaskConfig
from bertjax.data.examples import Label, Row
from bertjax.data.sources.lines import BadError
from bertjax.errors import BertjaxError

_SHOWN = 5  # labels that a line names


class Labels(NamedTuple):
    """The labels that examples have one of, or several: the number of a label is its place."""

    names: tuple[str, ...]
    several: bool = False

    @property
    def num_outputs(self) -> int:
        """Numbers that a model tells of an example."""
        return len(self.names)

    def numbers(self, rows: Sequence[Row]) -> np.ndarray:
        """Returns the label's number of each row, int32 [n]; or of several labels which it has, float32 [n, c].

        Raises:
          BertjaxError: a row has another label than these.
        """
        places = {name: place for place, name in enumerate(self.names)}
        for row in rows:
            if unknown := [label for label in _labels(row) if label not in places]:
                known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
                raise BertjaxError(
                    f"{row.place} has the label {unknown[0]!r}, which no example to learn from has; they have {known}"
                )
        if not self.several:
            return np.array([places[label] for row in rows for label in _labels(row)], np.int32)
        has_nc = np.zeros((len(rows), len(self.names)), np.float32)
        for number, row in enumerate(rows):
            has_nc[number, [places[label] for label in _labels(row)]] = 1
        return has_nc

    def counts(self, labels_n: np.ndarray) -> np.ndarray:
        """Returns how many of these examples have each label, int64 [c]."""
        if self.several:
            return labels_n.sum(0).astype(np.int64)
        return np.bincount(labels_n, minlength=len(self.names))

    def told(self, labels_n: np.ndarray) -> dict[str, Any]:
        """Returns what a run's environment.json tells of the labels of some examples."""
        counts = zip(self.names, self.counts(labels_n).tolist(), strict=True)
        return {"labels": {name: count for name, count in sorted(counts) if count}}

    def described(self, labels_n: np.ndarray) -> str:
        """Returns a line about the labels to learn."""
        counts = self.counts(labels_n)
        some = [f"{name} ({count:,})" for name, count in list(zip(self.names, counts, strict=True))[:_SHOWN]]
        more = f" and {len(self.names) - _SHOWN:,} more" if len(self.names) > _SHOWN else ""
        none = int((labels_n.sum(1) == 0).sum()) if self.several else 0
        return f"labels:   {', '.join(some)}{more}" + (f"; {none:,} examples have none" if none else "")

    def weights(self, labels_n: np.ndarray) -> list[float]:
        """Returns what an example of each label counts for where all labels are to count for as much.

        Of several, what having a label counts for, where not having it counts 1.
        """
        counts = self.counts(labels_n)
        if self.several:
            return [(len(labels_n) - count) / count for count in counts.tolist()]
        return [len(labels_n) / len(self.names) / count for count in counts.tolist()]


class Scores(NamedTuple):
    """Numbers, learned as (number - mean) / deviation."""

    mean: float = 0.0
    deviation: float = 1.0

    @property
    def num_outputs(self) -> int:
        """Numbers that a model tells of an example."""
        return 1

    def numbers(self, rows: Sequence[Row]) -> np.ndarray:
        """Returns what is learned of each row, float32 [n]."""
        scores_n = np.array([row.label for row in rows], np.float64)
        return ((scores_n - self.mean) / self.deviation).astype(np.float32)

    def scores(self, learned_n: np.ndarray) -> np.ndarray:
        """Returns the numbers themselves, of what is learned of them, float64."""
        return learned_n.astype(np.float64) * self.deviation + self.mean

    def told(self, labels_n: np.ndarray) -> dict[str, Any]:
        """Returns what a run's environment.json tells of the numbers of some examples."""
        scores_n = self.scores(labels_n)
        return {"mean": round(float(scores_n.mean()), 6), "deviation": round(float(scores_n.std()), 6)}

    def described(self, labels_n: np.ndarray) -> str:
        """Returns a line about the numbers to learn."""
        scores_n = self.scores(labels_n).round(6) + 0.0  # what is left of a 0 may be -0
        return f"numbers:  {scores_n.min():.4g} to {scores_n.max():.4g}, mean {scores_n.mean():.4g}"


Targets = Labels | Scores


def label_reader(task: TaskConfig) -> Callable[[Any], Label | BadError]:
    """Returns what makes a label of a record's field, or says why it cannot."""
    column = f"in {task.label!r} (task.label)"

    def label(value: Any) -> str | BadError:
        if isinstance(value, bool | int | float):
            value = json.dumps(value)
        if not isinstance(value, str) or not value.strip():
            return BadError(f"has no label {column}, but {value!r}; give text", "label")
        return value.strip()

    def labels(value: Any) -> tuple[str, ...] | BadError:
        assert task.label_separator is not None
        if isinstance(value, str):
            value = [part for part in value.split(task.label_separator) if part.strip()]
        if not isinstance(value, list):
            return BadError(f"has no labels {column}, but {value!r}; give text, or a list of texts", "label")
        found = [label(part) for part in value]
        bad = [part for part in found if isinstance(part, BadError)]
        return bad[0] if bad else tuple(sorted({part for part in found if isinstance(part, str)}))

    def score(value: Any) -> float | BadError:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            return BadError(f"has no number {column}, but {value!r}; give one", "label")
        if task.kind == "rerank" and not 0 <= number <= 1:
            return BadError(f"has {number} {column}, which is not from 0 to 1; divide all by the greatest", "label")
        return number

    if task.kind != "classify":
        return score
    return label if task.label_separator is None else labels


def learn_targets(task: TaskConfig, rows: Sequence[Row]) -> Targets:
    """Returns the labels that rows have, or how their numbers lie.

    Labels are in order as numbers are where all are whole ones, else as letters are.

    Raises:
      BertjaxError: there is but one.
    """
    if task.kind != "classify":
        scores = [row.label for row in rows if isinstance(row.label, float)]
        if len(set(scores)) == 1:
            raise BertjaxError(f"every one of {len(rows):,} rows has the number {scores[0]}; give rows of two or more")
        return Scores() if task.kind == "rerank" else Scores(float(np.mean(scores)), float(np.std(scores)))
    found = Counter(label for row in rows for label in _labels(row))
    several = task.label_separator is not None
    if len(found) < (1 if several else 2) or len({row.label for row in rows}) == 1:
        only = f"the label {next(iter(found))!r}" if found else "no label"
        raise BertjaxError(f"every one of {len(rows):,} rows has {only}; give rows of two labels or more")
    whole = all(label.removeprefix("-").isdecimal() for label in found)
    return Labels(tuple(sorted(found, key=lambda label: (int(label) if whole else 0, label))), several)


def rare_labels(targets: Targets, labels_n: np.ndarray) -> list[str]:
    """Returns the labels that one example alone has."""
    if isinstance(targets, Scores):
        return []
    return [name for name, count in zip(targets.names, targets.counts(labels_n), strict=True) if count == 1]


def _labels(row: Row) -> tuple[str, ...]:
    assert not isinstance(row.label, float)
    return row.label if isinstance(row.label, tuple) else (row.label,)


def to_json(targets: Targets) -> bytes:
    """Returns targets as a run keeps them: a list of labels, or numbers by name."""
    kept: Any = targets._asdict()
    if isinstance(targets, Labels):
        kept = kept if targets.several else list(targets.names)
    return (json.dumps(kept, ensure_ascii=False, indent=1) + "\n").encode()


def from_json(text: str) -> Targets:
    """Returns what `to_json` was given. Raises ValueError where it is no such text."""
    kept = json.loads(text)
    try:
        if isinstance(kept, list):
            kept = {"names": kept}
        if "mean" in kept:
            return Scores(float(kept["mean"]), float(kept["deviation"]))
        names, several = tuple(kept["names"]), bool(kept.get("several", False))
    except (KeyError, TypeError) as error:
        raise ValueError(f"neither labels nor numbers: {error!r}") from None
    if not all(isinstance(name, str) for name in names) or len(names) < (1 if several else 2):
        raise ValueError("no list of labels")
    return Labels(names, several)
