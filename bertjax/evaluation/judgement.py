"""Held-out figures of a fine-tuned run: what they are, how sure they are, and how they are told."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bertjax.runs.report import Learned, Table

RESAMPLES = 500  # of the examples, for an interval
_SURE = 0.95
_HARDEST, _CHARACTERS = 20, 300  # examples in a report, and what it shows of a text


class Figure(NamedTuple):
    """A figure, and between what it lies in 95% of samples that are drawn from the examples (Efron 1979)."""

    value: float
    low: float
    high: float


class Judgement(NamedTuple):
    """Figures of a run on some examples."""

    name: str  # of the examples
    num_examples: int
    figures: dict[str, Figure]  # by what people call them; the first is the one to choose runs by
    note: str  # what they are to be held against
    table: list[str]  # lines that tell more, by label
    detail: dict[str, Any]  # likewise, for JSON
    tables: Sequence[Table] = ()  # likewise, for the report


def resampled(figure: Callable[[np.ndarray], float], count: int) -> Figure:
    """Returns a figure of n examples with its interval.

    Args:
      figure: computes it of examples, by their numbers; NaN where they have none.
      count: n.
    """
    rng = np.random.default_rng(0)
    samples = [figure(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    return with_interval(figure(np.arange(count)), samples)


def mean_of(values_n: np.ndarray) -> Figure:
    """Returns the mean of values with its interval."""
    return resampled(lambda numbers: float(values_n[numbers].mean()), len(values_n))


def with_interval(value: float, samples: Sequence[float]) -> Figure:
    """Returns a figure with the interval that its values in samples of the examples have."""
    finite = [sample for sample in samples if math.isfinite(sample)] or [math.nan]
    low, high = np.quantile(finite, [(1 - _SURE) / 2, (1 + _SURE) / 2])
    return Figure(float(value), float(low), float(high))


def hardest(what: str, columns: Sequence[str], off_n: np.ndarray, row: Callable[[int], Sequence[str]]) -> Table:
    """Returns a table, for the report, of the examples of which the model is the most wrong.

    Args:
      what: a sentence about it.
      off_n: by how much it is wrong of each; those of -inf are left out.
      row: what the columns show of an example, by its number.
    """
    worst = [number for number in np.argsort(-off_n, kind="stable").tolist() if off_n[number] > -math.inf][:_HARDEST]
    return Table("Hardest examples", what, list(columns), [[*map(_short, row(number))] for number in worst])


def _short(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} …"


def as_learned(judgement: Judgement) -> Learned:
    """Returns what a run's report shows of it."""
    rows = [[name, *(f"{number:.4f}" for number in figure)] for name, figure in judgement.figures.items()]
    what = f"Of {judgement.name}, {judgement.num_examples:,} examples; in 95 of 100 such samples a figure lies between."
    tables = [Table("Figures", what, ["Figure", "Value", "at least", "at most"], rows, 3), *judgement.tables]
    note = judgement.note[:1].upper() + judgement.note[1:]
    return Learned([f"{note}."] if note else [], None, [], [], [], None, tables)


def describe(judgement: Judgement) -> str:
    """Returns the figures in a line."""
    figures = [f"{name} {shown(figure)}" for name, figure in judgement.figures.items()]
    note = f"; {judgement.note}" if judgement.note else ""
    return f"{judgement.name}, {judgement.num_examples:,} examples: {', '.join(figures)}{note}"


def values(judgement: Judgement) -> dict[str, float]:
    """Returns the figures without their intervals."""
    return {name: figure.value for name, figure in judgement.figures.items()}


def shown(figure: Figure) -> str:
    """Returns a figure and its interval as people read them."""
    return f"{figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})"


def render(judgement: Judgement) -> str:
    """Returns the figures as `bertjax evaluate` prints them."""
    return "\n".join([describe(judgement), *judgement.table])


def as_json(judgement: Judgement) -> str:
    """Returns all figures as JSON."""
    figures: Mapping[str, Any] = {name: figure._asdict() for name, figure in judgement.figures.items()}
    told = {"examples": judgement.name, "count": judgement.num_examples, "figures": figures, **judgement.detail}
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"
