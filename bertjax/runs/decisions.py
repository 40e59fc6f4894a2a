"""Decisions of a run on its way, which a resume must know: batches left out, and where a budget ends."""

import json
from pathlib import Path
from typing import NamedTuple

from bertjax.errors import BertjaxError
from bertjax.storage.atomic import atomic_write


class Skip(NamedTuple):
    """Batches left out after a step, because the loss rose among them."""

    after_step: int
    batches: int


class Decisions:
    """skipped.json and last_step.json of a run's folder; neither is there before it is needed."""

    def __init__(self, folder: Path):
        self._skipped, self._last_step = folder / "skipped.json", folder / "last_step.json"

    def skips(self) -> list[Skip]:
        """Returns the batches that are left out. Raises BertjaxError where they cannot be read."""
        try:
            skips = [Skip(**record) for record in json.loads(self._skipped.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise BertjaxError(f"{self._skipped} cannot be read: {error!r}; train anew") from error
        if not all(type(number) is int and number >= 0 for skip in skips for number in skip):
            raise BertjaxError(f"{self._skipped} holds what is no count of steps; train anew")
        return skips

    def add_skip(self, skip: Skip) -> None:
        """Leaves these batches out from now on."""
        records = [skip._asdict() for skip in (*self.skips(), skip)]
        with atomic_write(self._skipped) as file:
            file.write(json.dumps(records) + "\n")

    def last_step(self) -> int | None:
        """Returns where a run with a budget ends, None until that is decided.

        Raises:
          BertjaxError: the file cannot be read.
        """
        try:
            step = json.loads(self._last_step.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise BertjaxError(f"{self._last_step} cannot be read: {error!r}; train anew") from error
        if type(step) is not int or step < 1:
            raise BertjaxError(f"{self._last_step} holds what is no step; train anew")
        return step

    def end_at(self, step: int) -> None:
        """Ends the run at a step, from now on."""
        with atomic_write(self._last_step) as file:
            file.write(f"{step}\n")
