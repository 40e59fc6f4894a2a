"""Progress of a run: the lines and the bar that a person sees, and the lines of metrics.jsonl and timings.jsonl."""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from bertjax.config import TrainConfig
from bertjax.objectives.metrics import Metrics, RunningMeans
from bertjax.runs.metrics import Figures, RunMetrics, figures
from bertjax.runs.plots import LivePlot

_logger = logging.getLogger(__name__)


class Work(NamedTuple):
    """What a step computes for each of its sequences, on average, and what the devices could."""

    tokens: float
    operations: float
    peak: int | None
    """operations a second of matrix products on all devices together; None where it cannot be measured"""


class Progress:
    """Takes each step's metrics, in order; writes lines, moves the bar, keeps running means and the rate.

    A line of metrics.jsonl is of one step, not a mean since the last: nothing of it is lost when a run is resumed.

    The rate is over the time between one step's end and the next one's, data loading included. Left out are the
    first step of the process, in which XLA compiles, one before each change of a growing batch's size, in which it does
    so again, and evaluations and checkpoints.

    Args:
      heads: what people call each head, by its name in the metrics.
      sequences: what people call what is learned from, in the plural.
      work: tells what a sequence takes, asked once, where somebody looks at a bar.
      plot: is drawn again with the lines, and has the bar's words under its title: a bar between lines of a log would
        begin anew after each of them.
    """

    def __init__(
        self,
        metrics: RunMetrics,
        train: TrainConfig,
        heads: Mapping[str, str],
        sequences: str,
        *,
        work: Callable[[], Work] | None = None,
        plot: LivePlot | None = None,
    ):
        self.step, self.steps, self.first_step, self.first_seconds = 0, train.steps, 0, 0.0
        self._metrics, self._train, self._heads, self._sequences = metrics, train, heads, sequences
        self._skipped_steps = 0
        self._timed_steps, self._timed_pairs, self._timed_seconds = 0, 0.0, 0.0
        self._pairs_in: Callable[[int], float] | None = None
        self._rows_in: Callable[[int], int] | None = None
        self._seconds_left: Callable[[], float] | None = None
        self._running = RunningMeans()
        self._plot, self._ask_work = plot, work
        self._work: Work | None = None
        self._status = ""
        self._interactive = sys.stderr.isatty() or plot is not None
        self._bar = tqdm(
            total=train.steps,
            disable=not self._interactive or plot is not None or jax.process_index() > 0,
            desc="compiling the first step",
            bar_format="step {n_fmt}/{total_fmt} |{bar}| {desc} {remaining} left",
            dynamic_ncols=True,
        )
        self.restart_clock()

    def start_at(
        self,
        step: int,
        pairs_in: Callable[[int], float] | None = None,
        rows_in: Callable[[int], int] | None = None,
    ) -> None:
        """Begins after a step: when the process begins, or when it goes back to a checkpoint.

        Args:
          pairs_in: gives the sequences in a step, counted from 1; by default a whole batch.
          rows_in: gives its rows likewise; by default they are the same in each.
        """
        self._pairs_in, self._rows_in = pairs_in, rows_in
        self.first_step = self.first_step or step + 1
        self.step = step
        self._bar.initial = self._bar.n = step
        self._bar.refresh()
        if self._ask_work and self._interactive and jax.process_index() == 0:
            self._work, self._ask_work = self._ask_work(), None
        self.restart_clock()

    def end_at(self, step: int, *, seconds_left: Callable[[], float] | None = None) -> None:
        """Sets the last step, or an earlier one where a run's seconds are over before.

        Args:
          seconds_left: gives the seconds that are left of a budget.
        """
        self.steps = self._bar.total = step
        self._seconds_left = seconds_left

    def restart_clock(self) -> None:
        """Leaves out the time since the last step's end."""
        self._last_end = time.perf_counter()

    def step_done(self, metrics: Metrics) -> dict[str, float]:
        """Waits for the step's end, so call it when the next one is under way; returns the step's own means."""
        metrics = jax.device_get(metrics)
        seconds = time.perf_counter() - self._last_end
        self.restart_clock()
        self.step += 1
        if not self.first_seconds:
            self.first_seconds = seconds
        elif self._rows(self.step) == self._rows(self.step + 1):  # else XLA compiled for the next one's size
            self._timed_steps, self._timed_seconds = self._timed_steps + 1, self._timed_seconds + seconds
            self._timed_pairs += self._pairs(self.step)
        of_step = RunningMeans()
        of_step.add(metrics)
        means = of_step.means()
        self._skipped_steps = round(means["skipped_steps"])
        if means["skipped_in_a_row"] == 0:  # else its loss may be no number, and would stay in the means
            self._running.add(metrics)
        self._show(means)
        return means

    def held_out(self, means: dict[str, float]) -> None:
        """Shows and keeps the figures of an evaluation after the last step."""
        self._metrics.append({"step": self.step, **{f"held_out_{name}": value for name, value in means.items()}})
        heads = (figures.described() for figures in self._figures(means))
        self.say(f"held out at step {self.step}: {'; '.join(heads)}")
        self._draw()

    def say(self, line: str) -> None:
        """Logs a line of its own, which goes above the bar where there is one."""
        _logger.info(line)

    def close(self) -> None:
        """Leaves the bar as it is, and closes the files of the metrics."""
        self._bar.close()
        self._metrics.close()
        if self._plot and jax.process_index() == 0:
            self._plot.draw(at_once=True)

    @property
    def pairs_per_second(self) -> float:
        """Sequences a second, on all devices together; 0 until there is a second step to time."""
        return self._timed_pairs / self._timed_seconds if self._timed_seconds else 0.0

    @property
    def running_means(self) -> dict[str, float]:
        """Means of the metrics over this process's steps."""
        return self._running.means()

    def _pairs(self, step: int) -> float:
        return self._pairs_in(step) if self._pairs_in else self._train.batch_size

    def _rows(self, step: int) -> int:
        return self._rows_in(step) if self._rows_in else self._train.batch_size

    def _figures(self, means: dict[str, float]) -> list[Figures]:
        return figures(means, self._heads)

    def _rate(self) -> str:
        if self._work is None:
            return f"{self.pairs_per_second:,.0f} {self._sequences}/s"
        rate = f"{self.pairs_per_second * self._work.tokens:,.0f} tokens/s"
        if self._work.peak:
            rate += f"  {self.pairs_per_second * self._work.operations / self._work.peak:.0%} of peak"
        return rate

    def _draw(self) -> None:
        if self._plot and jax.process_index() == 0:
            self._plot.draw(self._status)

    def _expected_last_step(self) -> int:
        if self._seconds_left is None or not self._timed_steps:
            return self.steps
        return min(self.steps, self.step + round(self._seconds_left() * self._timed_steps / self._timed_seconds))

    def _show(self, means: dict[str, float]) -> None:
        rate = f"compiled, {self.first_seconds:.1f} s"
        if self._timed_steps:
            rate = self._rate()
        line = "  ".join([*(f"{name.lower()} {loss:.3f}" for name, loss, _ in self._figures(means)), rate])
        if self._skipped_steps:
            line += f"  {self._skipped_steps} skipped, not finite"
        self._bar.total = last = self._expected_last_step()
        self._bar.set_description_str(line, refresh=False)
        self._bar.update()
        if self.step % self._train.log_every == 0 or self.step == self.steps:
            self._metrics.append({"step": self.step, **means})
            self._metrics.append_timings({"step": self.step, "pairs_per_second": round(self.pairs_per_second, 1)})
            left = (last - self.step) * self._timed_seconds / max(self._timed_steps, 1)
            time_left = f"  {tqdm.format_interval(round(left))} left" if self._timed_steps else ""
            self._status = f"step {self.step}/{self.steps}  {line}{time_left}"
            self._draw()
            if not self._interactive:
                self.say(self._status)


def describe_devices(mesh: Mesh) -> str:
    """Describes a mesh: "4 x NVIDIA H100", or "16 x NVIDIA H100 in 2 processes (data 2, fsdp 8, tensor 1)"."""
    processes = len({device.process_index for device in mesh.devices.flat})
    where = f" in {processes} processes" if processes > 1 else ""
    sizes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    how = f" ({sizes})" if mesh.shape["data"] < mesh.size else ""
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind}{where}{how}"
