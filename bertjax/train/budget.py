"""Training for so long and no longer: when the learning rate has to begin to fall."""

import time
from collections.abc import Callable

_MARGIN = 1.05  # later steps may be slower than those before


class Budget:
    """The seconds of a run, those of its earlier processes included.

    Args:
      seconds: of the whole run.
      spent: those of earlier processes.
      decay_share: of the steps, those in which the learning rate falls.
      steps: the most steps.
      afterwards: steps that what comes after the last one takes as long as, at most.
      clock: seconds from some moment on; by default from now.
    """

    def __init__(
        self,
        seconds: float,
        *,
        spent: float,
        decay_share: float,
        steps: int,
        afterwards: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._seconds, self._share, self._steps, self._afterwards = seconds, decay_share, steps, afterwards
        self._clock, self._began = clock, clock() - spent
        self._compiling_since, self._compiling, self._first = 0.0, 0.0, (0, 0.0)

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self._clock() - self._began

    def seconds_left(self) -> float:
        """Seconds until it is over."""
        return max(0.0, self._seconds - self.spent)

    def compiling_begins(self) -> None:
        """The step is about to be compiled."""
        self._compiling_since = self.spent

    def compiled(self) -> None:
        """The step is compiled."""
        self._compiling = max(self._compiling, self.spent - self._compiling_since)  # a return compiles nothing

    def first_step_done(self, step: int) -> None:
        """From here on steps are timed."""
        self._first = step, self.spent

    def last_step(self, step: int, every: int) -> int | None:
        """The last step, if the learning rate has to fall from this one on; None while there is time.

        Args:
          every: steps until this is asked again.
        """
        (first, since), spent = self._first, self.spent
        if first in (0, step):  # nothing is timed yet
            return None
        step_seconds = (spent - since) / (step - first)
        falling = max(1, int(self._share / (1 - self._share) * step))
        if step + falling >= self._steps:
            return None  # as it was to be without a budget
        # The step is compiled for its new schedule, and perhaps the evaluation.
        needed = 2 * self._compiling + (falling + every + self._afterwards) * step_seconds * _MARGIN
        return step + falling if self._seconds - spent <= needed else None
