"""Pictures of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
