"""Pictures of a run."""

from pathlib import Path
from typing import Any


def plot_losses(metrics: list[dict[str, Any]], path: Path, title: str) -> None:
    """Both losses against the step, the held-out ones as points, as a PNG.

    Args:
      metrics: the lines of metrics.jsonl.
    """
    import matplotlib

    matplotlib.use("Agg")  # a file, never a window
    import matplotlib.pyplot as plt

    figure, (mlm, nsp) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, name, label, color in ((mlm, "mlm_loss", "MLM", "C0"), (nsp, "nsp_loss", "NSP", "C1")):
        for key, style in (
            (name, {"lw": 1.5}),
            (f"held_out_{name}", {"ls": "", "marker": "o", "ms": 6, "mec": "w"}),
        ):
            rows = [(record["step"], record[key]) for record in metrics if record.get(key) is not None]
            if rows:
                held_out = key.startswith("held_out")
                steps, losses = zip(*rows, strict=True)
                text = f"held out (last {losses[-1]:.3f})" if held_out else "training"
                axes.plot(steps, losses, label=text, color="k" if held_out else color, zorder=2 + held_out, **style)
        axes.set(title=f"{label} loss", xlabel="step", ylabel="nats")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False)
    figure.suptitle(title, parse_math=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
