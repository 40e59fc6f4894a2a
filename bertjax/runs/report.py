"""The report page: one or several runs as a single HTML file that opens from disk and asks nobody for anything.

What is shown comes here as plain data. No model is run, and there is no script: a browser is told to run none and to
fetch nothing, so a text or a name that holds HTML stays text whatever is in it.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertjax.config import Config
from bertjax.config.keys import flat
from bertjax.config.recipes import shipped_settings
from bertjax.errors import BertjaxError
from bertjax.runs.charts import COLORS, Curve, draw_curves, every_so_many, picture_of_weights
from bertjax.runs.folder import RunFolder
from bertjax.runs.pages import render

_PLACES = {"run_dir", "data.path", "data.eval_path", "data.cache", "data.workers", "train.log_every"}
_PLACES |= {f"distributed.{name}" for name in ("coordinator", "num_processes", "process_id", "bind_address")}
# What would make a page large: weights of attention, over which rows no longer tell theirs; heads; rows below curves.
_TOLD_BY_ROW, _HEADS, _ROWS = 10_000, 400, 100


class ClassFigures(NamedTuple):
    """Held-out figures of the words of one class, beside those of guessing by frequency."""

    name: str
    predictions: int
    loss: float
    accuracy: float
    frequency_loss: float
    frequency_accuracy: float


class Sentence(NamedTuple):
    """A sentence of which one word was hidden, and what the model guesses there, best first."""

    tokens: list[str]
    place: int
    guesses: list[tuple[str, float]]


class Near(NamedTuple):
    """A use of a word, and how near it is to another one."""

    tokens: list[str]
    place: int
    cosine: float


class WordUses(NamedTuple):
    """A use of a word, with the uses that are nearest to it, and the one that is furthest."""

    word: str
    tokens: list[str]
    place: int
    nearest: list[Near]
    furthest: Near
    uses: int  # that were compared


class Attention(NamedTuple):
    """Weights by which each token of a sentence looks at the others."""

    tokens: list[str]
    weights_lhts: np.ndarray

    @property
    def heads(self) -> int:
        """Heads of all layers."""
        return self.weights_lhts.shape[0] * self.weights_lhts.shape[1]


class Table(NamedTuple):
    """A table of anything: the first column heads the rows, and the last ones may hold numbers."""

    title: str
    what: str  # a sentence about it
    columns: list[str]
    rows: list[list[str]]
    numbers: int = 0  # how many of the last columns hold them


class Learned(NamedTuple):
    """What a run's model has learned, shown on held-out text."""

    verdict: list[str]  # sentences
    frequency_loss: float | None  # of guessing all held-out words by how frequent they are, beside the first head's
    classes: list[ClassFigures]  # the first is of all words; on the first part of the text
    sentences: list[Sentence]
    words: list[WordUses]
    attention: Attention | None
    tables: Sequence[Table] = ()


class Command(NamedTuple):
    """A command line, and what it is good for."""

    what: str
    line: str


class RunReport(NamedTuple):
    """All that the page tells of a run."""

    folder: RunFolder
    config: Config
    heads: Mapping[str, str]  # what people call each head, by its name in the metrics
    sequences: str  # what is learned from, in the plural
    parameters: int
    learned: Learned | None
    why_not: str  # why `learned` is not there
    commands: list[Command]


def render_report(runs: Sequence[RunReport]) -> str:
    """Returns the page.

    Raises:
      BertjaxError: a run's environment cannot be read.
    """
    names = [run.folder.path.absolute().name for run in runs]
    told = [
        _told(run, number, name if names.count(name) == 1 else str(run.folder.path), _HEADS // len(runs))
        for number, (run, name) in enumerate(zip(runs, names, strict=True))
    ]
    differing = _differing([run["flat"] for run in told])
    return render(
        "report.html",
        runs=told,
        differing=differing,
        charts=_charts(told),
        several=len(runs) > 1,
    )


def _told(run: RunReport, number: int, name: str, most_heads: int) -> dict[str, Any]:
    folder = run.folder
    config, metrics, timings = run.config, folder.metrics.read(), _merged(folder.metrics.read_timings())
    environment, evaluation = folder.environment(), folder.metrics.evaluation(config.eval.best)
    step = max((line["step"] for line in metrics), default=0)
    recipe, its_own = _nearest_recipe(flat(config))
    corpus = environment.get("corpus") or {}
    told: dict[str, Any] = {
        "report": run,
        "number": number,
        "color": number % COLORS,
        "name": name,
        "path": folder.place,
        "flat": flat(config),
        "config": config,
        "metrics": metrics,
        "step": step,
        "timings": timings,
        "held_out": _held_out(run.heads, evaluation),
        "held_out_step": evaluation.get("step"),
        "train_text": corpus.get("train") or {},
        "held_out_text": corpus.get("held_out") or {},
        "instead_of": corpus.get("fallback_because"),
        "devices": environment.get("devices") or [],
        "environment": environment,
        "recipe": recipe,
        "settings": [(key, value, its_own[key]) for key, value in flat(config).items() if key not in _PLACES],
        "speed": _speed(timings, run.sequences),
        "heads": _heads_of_attention(run.learned, most_heads),
    }
    return told


def _merged(timings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The newest of each figure, but the seconds of all processes that went on with the run."""
    merged: dict[str, Any] = {}
    for line in timings:
        merged |= {name: value for name, value in line.items() if value is not None}
    if seconds := [line["seconds"] for line in timings if line.get("seconds")]:
        merged["seconds"] = sum(seconds)
    return merged


class _HeldOut(NamedTuple):
    name: str
    loss: float | None
    accuracy: float | None
    unit: bool  # whether the loss is in nats


def _held_out(heads: Mapping[str, str], evaluation: Mapping[str, Any]) -> list[_HeldOut]:
    def found(head: str, name: str) -> _HeldOut:
        loss, accuracy = (evaluation.get(f"held_out_{head}_{what}") for what in ("loss", "accuracy"))
        return _HeldOut(name, loss, accuracy, head != "score")

    return [found(head, name) for head, name in heads.items() if f"held_out_{head}_loss" in evaluation]


def _speed(timings: Mapping[str, Any], sequences: str) -> list[tuple[str, str]]:
    """Rows of what was measured, and of what was not."""
    rate, peak = timings.get("operations_per_second"), timings.get("peak_operations_per_second")
    rows = [
        ("Time, preparing and compiling included", _time(timings.get("seconds"))),
        (f"{sequences.capitalize()} a second", _number(timings.get("pairs_per_second"))),
        ("Tokens a second, padding not counted", _number(timings.get("tokens_per_second"))),
        ("Useful operations a second", _scaled(rate, "FLOP/s")),
        ("Peak of matrix products, measured at the end of the run", _scaled(peak, "FLOP/s")),
        ("Share of that peak", f"{rate / peak:.1%}" if rate and peak else _NOT_MEASURED),
        ("Most memory of the process", _scaled(timings.get("host_bytes"), "B")),
        ("Most memory of a device", _scaled(timings.get("device_bytes"), "B")),
    ]
    return rows


_NOT_MEASURED = "not measured"


def _number(value: float | None) -> str:
    return _NOT_MEASURED if value is None else f"{value:,.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return _NOT_MEASURED
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds if not hours else 0, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "under a second"


def _scaled(value: float | None, unit: str) -> str:
    """With three digits: 1,230,000,000 B is "1.23 GB"."""
    if value is None:
        return _NOT_MEASURED
    power = min(5, max(0, int(math.log10(max(value, 1)) // 3)))
    return f"{value / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P'][power]}{unit}"


def _nearest_recipe(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The recipe that comes with bertjax from which the fewest settings differ: a run doesn't tell which it began as.

    What a recipe leaves open, as the size of a vocabulary, does not differ.
    """

    def as_taken(recipe: Mapping[str, Any]) -> dict[str, Any]:
        taken = dict(settings) | dict(recipe)
        open_or_found = {"model.vocab_size": None, "data.source": recipe["data.fallback"]}
        return taken | {
            key: settings[key] for key, value in open_or_found.items() if taken[key] is None or settings[key] == value
        }

    near = {name: as_taken(recipe) for name, recipe in shipped_settings().items()}
    differences = {
        name: sum(recipe[key] != value for key, value in settings.items() if key not in _PLACES)
        for name, recipe in near.items()
    }
    nearest = min(near, key=lambda name: differences[name])
    return nearest, near[nearest]


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The settings that are not the same in all runs, with the value in each."""
    first = settings[0]
    return [
        (key, [of_run[key] for of_run in settings])
        for key in first
        if key != "run_dir" and any(of_run[key] != first[key] for of_run in settings)
    ]


class _Chart(NamedTuple):
    title: str
    unit: str
    svg: Any
    rows: list[tuple[str, str, str]]  # run and kind, step, value: what the points tell, for who cannot hover


def _charts(runs: Sequence[dict[str, Any]]) -> list[_Chart]:
    """Loss and accuracy of each head that any run has, learning rate and rate of training."""
    heads = {head: name for run in runs for head, name in run["report"].heads.items()}
    wanted = [(f"{head}_loss", f"{name} loss", "" if head == "score" else "nats") for head, name in heads.items()]
    wanted += [(f"{head}_accuracy", f"{name} accuracy", "share") for head, name in heads.items()]
    wanted += [("learning_rate", "Learning rate", "")]
    charts: list[_Chart] = []
    for key, title, unit in wanted:
        curves = []
        for run in runs:
            prefix = f"{run['name']}, " if len(runs) > 1 else ""
            color = run["color"]
            apart = color if len(runs) > 1 else 1
            curves.append(Curve(f"{prefix}training", _points(run["metrics"], key), color))
            curves.append(Curve(f"{prefix}held out", _points(run["metrics"], f"held_out_{key}"), apart, joined=False))
        if any(curve.points for curve in curves):
            charts.append(_chart(title, unit, curves, len(charts)))
    return charts


def _chart(title: str, unit: str, curves: Sequence[Curve], number: int) -> _Chart:
    from markupsafe import Markup

    svg = draw_curves(curves, label=f"{title} over the steps", ids=f"chart{number}-")
    rows = [
        (curve.name, f"{step:,}", f"{value:.4g}")
        for curve in curves
        for step, value in every_so_many(curve.points, max(2, _ROWS // len(curves)))
    ]
    return _Chart(title, unit, Markup(svg), rows)


def _points(metrics: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(line["step"], line[key]) for line in metrics if line.get(key) is not None]


class _Head(NamedTuple):
    layer: int
    head: int
    picture: str
    strongest: str
    rows: list[str]


def _heads_of_attention(learned: Learned | None, most: int) -> list[_Head]:
    if learned is None or learned.attention is None:
        return []
    tokens, weights_lhts = learned.attention
    heads = []
    for layer, weights_hts in enumerate(weights_lhts, 1):
        for head, weights_ts in enumerate(weights_hts, 1):
            t, s = np.unravel_index(weights_ts.argmax(), weights_ts.shape)
            strongest = f"{tokens[t]} looks most at {tokens[s]} ({weights_ts[t, s]:.0%})"
            rows = []
            if weights_lhts.size <= _TOLD_BY_ROW:
                for token, weights_s in zip(tokens, weights_ts, strict=True):
                    best = np.argsort(-weights_s)[:4].tolist()
                    rows.append(f"{token}: " + ", ".join(f"{tokens[n]} {weights_s[n]:.0%}" for n in best))
            heads.append(_Head(layer, head, picture_of_weights(weights_ts), strongest, rows))
            if len(heads) == most:
                return heads
    return heads


def commands_of(folder: RunFolder, *, constant: bool, exports: bool) -> list[Command]:
    """Returns what one may do with a run, as command lines.

    Args:
      constant: its learning rate does not depend on the number of steps, so that it may be given more.
      exports: other tools have a place for its model.
    """
    name = shlex.quote(folder.place)
    beside = {end: shlex.quote(f"{folder.place}{end}") for end in ("-further", "-exported", ".stablehlo")}
    further = f"{folder.resume_command} --train.steps N"
    if not constant:
        start = f"bertjax pretrain --config {name}/config.yaml --init_from {name}"
        if folder.begun and folder.config().init_layers is not None:  # which were those of another model
            start += " --init_layers null"
        further = f"{start} --run_dir {beside['-further']}"
    export = f"bertjax export {name} {beside['-exported']}"
    if not exports:
        here = shlex.quote(f"{folder.path.name}.stablehlo") if folder.url else beside[".stablehlo"]
        export = f"bertjax export {name} {here} --format stablehlo"
    return [
        Command("Train further", further),
        Command("Encode a text", f'bertjax encode {name} "a crane is flying"'),
        Command("Encode a file, a line a vector", f"bertjax encode {name} --input lines.txt --out vectors.npy"),
        Command("Guess hidden words", f'bertjax fill-mask {name} "the <mask> is flying"'),
        Command("Try it on a page of your own", f"bertjax explore {name}"),
        Command("Evaluate on held-out text", f"bertjax evaluate {name}"),
        Command("Export for other tools" if exports else "Export for JAX alone", export),
    ]


def commands_of_task(folder: RunFolder, kind: str) -> list[Command]:
    """Returns what one may do with a run that was fine-tuned, as command lines.

    Args:
      kind: of its task.
    """
    name, exported = shlex.quote(folder.place), shlex.quote(f"{folder.place}-exported")
    use = Command("Encode a file, a line a vector", f"bertjax encode {name} --input lines.txt --out vectors.npy")
    if kind != "embed":
        use = Command("Tell what is in another file", f"bertjax predict {name} --input texts.csv --out predictions.csv")
    return [
        use,
        Command("Evaluate on other examples", f"bertjax evaluate {name} --task.eval test.csv"),
        Command("Export for other tools", f"bertjax export {name} {exported}"),
    ]


def check_runs(folders: Sequence[RunFolder]) -> None:
    """Raises BertjaxError where one of these stands there twice."""
    seen: set[Path] = set()
    for folder in folders:
        if (path := folder.path.resolve()) in seen:
            raise BertjaxError(f"{folder.path} is given twice; give each run once")
        seen.add(path)
