"""Growth of time and of operations against each size, as exponents in a table and a plot."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.speed import table
from benchmarks.speed.benches import describe_model, highest
from benchmarks.speed.contest import Contender, spread, take_turns
from bertjax.config import Config
from bertjax.config.recipes import flat, save_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES: dict[str, list[float]] = {
    "batch": [32, 64, 128, 256],
    "length": [32, 64, 128, 256],
    "layers": [2, 4, 8, 16],
    "hidden": [64, 128, 256, 512],
    "corpus": [0.125, 0.25, 0.5, 1.0],
}
_BATCH, _VOCABULARY = 64, 20_256  # of the steps, where the axis is another
TOLERANCE = 0.1  # of an exponent: caches and scatter, not another order of growth


def measure(
    config: Config,
    folder: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    rounds: int,
    axes: Mapping[str, Sequence[float]] = AXES,
) -> dict[str, Any]:
    """Returns a report; under "growth" a part for each axis, with sizes, seconds, operations and their exponents."""
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, row_length=None),
        model=dataclasses.replace(config.model, vocab_size=config.model.vocab_size or _VOCABULARY),
        train=dataclasses.replace(config.train, batch_size=_BATCH, gradient_accumulation_steps=1),
    )
    save_config(config, folder / "config.yaml")
    # A program is compiled in the first round only.
    caching = {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    arguments = {"config": str(folder / "config.yaml"), "axes": dict(axes), "steps": 5}
    contenders = {
        "ceiling": Contender("ceiling", {}, environment),
        "ours": Contender("growth", arguments, {**environment, **caching}),
    }
    runs = take_turns(contenders, rounds, say)
    names = [name for name in runs["ours"][0] if name != "peak_memory_bytes"]
    return {
        "bench": "growth",
        "rounds": rounds,
        "machine": table.describe_machine(()),
        "model": f"{describe_model(config.model)}; {_BATCH} pairs a step, of {config.data.max_length} tokens each, all "
        "real",
        "recipe": flat(config),
        "ceiling": highest(runs["ceiling"]),
        "growth": {name: _fitted([run[name] for run in runs["ours"]]) for name in names},
    }


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Returns the e of values ~ sizes**e, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _fitted(rounds: Sequence[dict[str, list[float]]]) -> dict[str, Any]:
    sizes, operations = rounds[0]["sizes"], rounds[0]["operations"]
    exponents = spread([fit_exponent(sizes, points["seconds"]) for points in rounds])
    operations_exponent = fit_exponent(sizes, operations)
    return {
        "sizes": sizes,
        "seconds": np.median([points["seconds"] for points in rounds], axis=0).tolist(),
        "operations": operations,
        "operations_exponent": operations_exponent,
        "time_exponent": exponents.median,
        "spread": {"time_exponent": [exponents.low, exponents.high]},
        "time_grows_faster": exponents.median > operations_exponent + TOLERANCE,
    }


def render(report: dict[str, Any]) -> str:
    """Returns the report as a text of at most 100 columns."""
    cells = [["", "sizes", "seconds", "operations", "time", ""]]
    for name, axis in report["growth"].items():
        low, high = axis["spread"]["time_exponent"]
        cells.append(
            [
                name,
                f"{table.number(axis['sizes'][0])}-{table.number(axis['sizes'][-1])}",
                f"{table.number(axis['seconds'][0])}-{table.number(axis['seconds'][-1])}",
                f"{axis['operations_exponent']:.2f}",
                f"{axis['time_exponent']:.2f} ({low:.2f}-{high:.2f})",
                "grows faster" if axis["time_grows_faster"] else "",
            ]
        )
    note = f"Exponents of the size; time grows faster where its exponent is greater by more than {TOLERANCE}."
    return "\n".join([*table.heading(report), "", *table.aligned(cells), "", note])


def draw(report: dict[str, Any]) -> "Figure":
    """Draws seconds against size, a panel an axis, beside a line that grows as the operations do."""
    from matplotlib.figure import Figure  # not pyplot: it would choose a backend
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    growth = report["growth"]
    columns = min(3, len(growth))
    rows = -(-len(growth) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(growth) :]:
        axes.set_visible(False)
    for axes, (name, axis) in zip(panels, growth.items(), strict=False):
        operations = np.array(axis["operations"])
        axes.loglog(axis["sizes"], axis["seconds"], "o-", label=f"time, exponent {axis['time_exponent']:.2f}")
        as_operations = axis["seconds"][-1] * operations / operations[-1]
        label = f"operations, {axis['operations_exponent']:.2f}"
        axes.loglog(axis["sizes"], as_operations, "--", color="0.5", label=label)
        # A little scatter must not fill the panel and look like growth.
        axes.set(title=name, ylabel="seconds", ylim=(min(axis["seconds"]) / 2, max(axis["seconds"]) * 2))
        axes.set_xticks(axis["sizes"], [table.number(size) for size in axis["sizes"]])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: table.number(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
