"""A table of largest differences, by family of models and what was compared, in the file that $BERTJAX_TABLE names."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Tell = Callable[[str, str, float], None]


@pytest.fixture(scope="session")
def tell() -> Iterator[Tell]:
    """A function that notes, of a family, what was compared and how far it was."""
    told: dict[str, dict[str, float]] = {}

    def note(family: str, what: str, far: float) -> None:
        print(f"{family}: {what} {far:.1e}")
        row = told.setdefault(family, {})
        row[what] = max(row.get(what, 0.0), far)

    yield note
    if named := os.environ.get("BERTJAX_TABLE"):
        Path(named).write_text(_table(told), encoding="utf-8")


def _table(told: dict[str, dict[str, float]]) -> str:
    columns = list(dict.fromkeys(what for row in told.values() for what in row))
    rows = [["", *columns], ["---"] * (1 + len(columns))]
    for family, row in told.items():
        rows.append(
            [family, *(f"{row[what]:.1e}" if row.get(what) else "0" if what in row else "–" for what in columns)]
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
