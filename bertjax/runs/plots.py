"""Pictures of a run."""

import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.errors import BertjaxError
from bertjax.runs.metrics import RunMetrics
from bertjax.storage.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_losses(metrics: list[dict[str, Any]], path: Path, title: str, heads: Mapping[str, str]) -> None:
    """Draws the loss of each head against the step, the held-out ones as points, as a PNG.

    Args:
      metrics: the lines of metrics.jsonl.
      heads: what people call each head, by its name in the metrics.
    """
    with atomic_write(path, binary=True) as file:
        draw_losses(metrics, title, heads).savefig(file, dpi=120, format="png")


class LivePlot:
    """The picture of `plot_losses` in a notebook, drawn again as a run goes on."""

    _SHARE = 0.05  # of a run's time may go into drawing, but for the first picture, which imports what draws

    def __init__(self, metrics: RunMetrics, title: str, heads: Mapping[str, str]):
        self._metrics, self._title, self._heads = metrics, title, heads
        self._display: Any = None
        self._due = 0.0  # in seconds of time.perf_counter

    def draw(self, caption: str = "", *, at_once: bool = False) -> None:
        """Draws what metrics.jsonl holds, unless it is too soon to.

        Args:
          caption: a line under the title.
          at_once: it is never too soon, as when a run ends.
        """
        begin = time.perf_counter()
        if not at_once and begin < self._due:
            return
        from IPython.display import Image, display

        png, title = io.BytesIO(), f"{self._title}\n{caption}" if caption else self._title
        draw_losses(self._metrics.read(), title, self._heads).savefig(png, dpi=80, format="png")
        if self._display is None:
            self._display = display(Image(png.getvalue()), display_id=True)
            return
        self._display.update(Image(png.getvalue()))
        end = time.perf_counter()
        self._due = end + (end - begin) / self._SHARE


def check_notebook() -> None:
    """Raises BertjaxError unless what this process displays is seen: IPython runs it as a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        raise BertjaxError("plot=True draws in a notebook, and this is none; loss.png is drawn when the run ends")


def draw_losses(metrics: list[dict[str, Any]], title: str, heads: Mapping[str, str]) -> "Figure":
    """Draws what `plot_losses` saves, from the same arguments."""
    from matplotlib.figure import Figure  # not pyplot: it would keep the figure, and choose a caller's backend

    figure = Figure(figsize=(10, 4), layout="constrained")
    all_axes = figure.subplots(1, len(heads), squeeze=False).flat
    for axes, (head, name), color in zip(all_axes, heads.items(), ("C0", "C1"), strict=False):
        training = [(line["step"], line[f"{head}_loss"]) for line in metrics if line.get(f"{head}_loss") is not None]
        held_out = [
            (line["step"], line[f"held_out_{head}_loss"])
            for line in metrics
            if line.get(f"held_out_{head}_loss") is not None
        ]
        if training:
            marker = "." if len(training) < 10 else ""  # a line of one point would not be seen
            axes.plot(*zip(*training, strict=True), color=color, marker=marker, label="training")
        if held_out:
            label = f"held out (last {held_out[-1][1]:.3f})"
            axes.plot(*zip(*held_out, strict=True), "ok", ms=6, mec="w", label=label)
        if training or held_out:
            axes.legend(frameon=False)
        axes.set(title=f"{name} loss", xlabel="step", ylabel="nats")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, parse_math=False)
    return figure
