"""The phases of a run, told from outside: by its output so far and by the files that are there."""

import enum
import re
from collections.abc import Iterator
from pathlib import Path

from bertjax.config import Config


class Phase(enum.StrEnum):
    """Phases of a run, in order."""

    STARTING = "starting"
    CORPUS = "building the corpus"
    COMPILING = "compiling"
    STEP = "in a step"
    EVALUATION = "in an evaluation"
    SAVE = "in a save"
    ENDING = "ending"  # all is saved; what is left is the plot and the last words


class Watch:
    """Looks at one process of a run. What earlier processes left behind is told from what this one does.

    Args:
      config: of the run, with `train.log_every` 1 and a `data.cache`.
      output: the file that the process's standard output goes to.
    """

    def __init__(self, config: Config, output: Path):
        self._config, self._output = config, output
        self._checkpoints = Path(config.run_dir) / "checkpoints"
        self._left_behind = {*self._unfinished_builds(), *self._unfinished_saves()}

    def phase(self) -> Phase:
        """Returns the phase of this moment; for a process that was killed, that of its last."""
        said = self._said()
        if any(path not in self._left_behind for path in self._unfinished_builds()):
            return Phase.CORPUS
        if "\ndevices: " not in said:
            return Phase.STARTING
        step, last, every = self.step(), self._config.train.steps, self._config.eval.every
        if step and (step == last or (every and step % every == 0)) and f"\nheld out at step {step}:" not in said:
            return Phase.EVALUATION  # and perhaps in a save too, which is in the background
        if any(path not in self._left_behind for path in self._unfinished_saves()):
            return Phase.SAVE
        if step < last:
            return Phase.STEP if step else Phase.COMPILING
        return Phase.ENDING if (self._checkpoints / str(last)).is_dir() else Phase.SAVE

    def step(self) -> int:
        """Returns the last step that the process has logged; 0 before its first."""
        steps = re.findall(r"^step (\d+)/", self._said(), re.MULTILINE)
        return int(steps[-1]) if steps else 0

    def _said(self) -> str:
        return self._output.read_text(encoding="utf-8") if self._output.exists() else ""

    def _unfinished_builds(self) -> Iterator[Path]:
        yield from Path(self._config.data.cache or "").glob("*/.building-*")  # a tokenizer or a corpus
        yield from Path(self._config.data.cache or "").glob("*/*/.building-*")  # a corpus's tables of pairs

    def _unfinished_saves(self) -> Iterator[Path]:
        yield from self._checkpoints.glob("partial-*")
