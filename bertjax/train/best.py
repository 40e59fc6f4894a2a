"""The best step of a run so far, by a held-out figure, and whether to look for a better one."""

from collections.abc import Mapping

from bertjax.config import EvalConfig
from bertjax.runs.metrics import best_first


class Best:
    """Evaluations of a run, by the figure that `eval.best` names. Without one there are none, and it goes on.

    Args:
      config: the figure and the patience.
      values: the figure after each step that was evaluated, in order; None where it was no number.
    """

    def __init__(self, config: EvalConfig, values: Mapping[int, float | None]):
        self.figure, self._patience, self._values = config.best, config.patience, dict(values)

    def add(self, step: int, value: float | None) -> None:
        """Takes in an evaluation after all others."""
        self._values[step] = value

    @property
    def steps(self) -> list[int]:
        """Steps with a value, the best first."""
        return best_first(self._values, self.figure) if self.figure else []

    @property
    def over(self) -> bool:
        """Whether there were `eval.patience` evaluations in a row without a better value."""
        since = [step for step in self._values if not self.steps or step > self.steps[0]]
        return self._patience is not None and len(since) >= self._patience

    def needs(self, step: int) -> bool:
        """Returns whether the run needs the checkpoint of the step that was evaluated last: the best, or its end."""
        return self.over or self.steps[:1] == [step]
