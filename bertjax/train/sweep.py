"""Several runs in turn: seeds of one setting, the settings of a grid, or both, and a table of what came of them.

Each run is one like any other, in a folder of its own within `run_dir`. The programs of runs that differ in the seed
or the learning rate alone are made once. Killed at any time and resumed, a sweep ends as if it never had been: each of
its runs does.
"""

import dataclasses
import itertools
import json
import logging
import math
import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bertjax.config import Config
from bertjax.config.checks import as_type
from bertjax.config.keys import TYPES, describe_unknown
from bertjax.errors import BertjaxError
from bertjax.parallel.distributed import joined, run_of
from bertjax.parallel.process_group import Processes
from bertjax.runs.folder import RunFolder
from bertjax.runs.metrics import is_better_less
from bertjax.storage.atomic import atomic_write
from bertjax.storage.hub_models import pinned
from bertjax.storage.paths import check_no_url
from bertjax.train.finetune import course_of
from bertjax.train.open_run import model_of_init, with_model
from bertjax.train.programs import shared_programs
from bertjax.train.run import carry_out

_logger = logging.getLogger(__name__)

_NOT_OURS = ("run_dir", "init_from")


class Setting(NamedTuple):
    """A point of a grid: what it has other than the rest, and the configuration that comes of it."""

    values: dict[str, str]  # by key, as they are shown
    config: Config


class Result(NamedTuple):
    """What came of the runs of a setting."""

    values: dict[str, str]
    folders: list[str]
    seeds: list[int]
    figures: list[dict[str, float]]  # of each run, held out
    failures: list[str]  # why those that ended before their time did

    @property
    def means(self) -> dict[str, tuple[float, float | None]]:
        """Each figure's mean over the runs, and its standard deviation where there are several.

        None of one that is no number in some run.
        """
        found = {}
        for name in self.figures[0] if self.figures else {}:
            values = [figures.get(name, math.nan) for figures in self.figures]
            if all(map(math.isfinite, values)):
                found[name] = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
        return found


def sweep(
    config: Config,
    *,
    seeds: int | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    resume: bool = False,
    typed: Collection[str] = (),
) -> list[Result]:
    """Fine-tunes with several seeds, with each combination of some values, or both.

    The folder of `config.run_dir` gets one of each run, and seeds.json, or grid.json, with what the table tells.

    Args:
      config: as of `finetune`. Where examples are held out from those of training, all runs hold out the same.
      seeds: number of runs of each setting, of the seeds from `config.seed` on; by default one run of that seed.
      grid: values of each key, such as {"optim.learning_rate": [1e-5, 3e-5]}.
      resume: go on with the runs that there are, and begin the others.
      typed: as of `finetune`.

    Returns:
      What came of each setting, the best first by the figure that `config.eval.best` names, else by the first.

    Raises:
      BertjaxError: a key or a value is impossible, before anything runs; or what any of the runs raises before it has
        made a step. One that fails later is told of, and not counted.
      KeyboardInterrupt, SystemExit: as of `finetune`, when the run that was under way is saved.
    """
    config, grid = as_type(config, Config, "config"), dict(grid or {})
    for key, values in grid.items():
        check_key(key)
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise BertjaxError(f"grid: {key} has {values!r}; give a list of values")
    combined = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return sweep_settings(
        [Setting({key: str(value) for key, value in values.items()}, _with(config, values)) for values in combined],
        seeds=seeds,
        resume=resume,
        typed=typed,
    )


def sweep_settings(
    settings: Sequence[Setting], *, seeds: int | None = None, resume: bool = False, typed: Collection[str] = ()
) -> list[Result]:
    """Does what `sweep` does, of settings whose configurations are made already."""
    seeds = as_type(seeds, int | None, "seeds")
    if seeds is not None and seeds < 1:
        raise BertjaxError(f"seeds={seeds} is no number of runs; give 1 or more")
    if seeds is None and not settings[0].values:
        raise BertjaxError("there is one run alone to make; give seeds, or a grid")
    check_no_url(settings[0].config.run_dir, "run_dir")
    settings = [setting._replace(config=_with_commit(setting.config)) for setting in settings]
    _check_models(settings, typed)
    with joined(settings[0].config.distributed, run_of(settings[0].config)) as processes:  # once for all runs
        return _sweep(settings, processes, seeds=seeds, resume=resume, typed=typed)


def _sweep(
    settings: Sequence[Setting], processes: Processes, *, seeds: int | None, resume: bool, typed: Collection[str]
) -> list[Result]:
    folder, plans = Path(settings[0].config.run_dir), [_plan(setting, seeds) for setting in settings]
    configs = [config for plan in plans for config in plan]
    processes.broadcast(lambda: _check_folders(folder, configs, resume=resume))
    rates = {setting.config.optim.learning_rate for setting in settings}
    programs, results = shared_programs(by_rate=len(rates) > 1), []
    for setting, plan in zip(settings, plans, strict=True):
        result = Result(setting.values, [], [], [], [])
        for config in plan:
            _logger.info(f"run {1 + configs.index(config)} of {len(configs)}: {config.run_dir}")
            try:
                finished = carry_out(config, course_of(config), resume=resume, typed=typed, programs=programs)
            except BertjaxError as error:
                # What is wrong before a step is wrong with the others too; of several processes all must have failed.
                if processes.size > 1 or not RunFolder(config.run_dir).metrics.read():
                    raise
                _logger.warning(f"{config.run_dir} has ended before its time: {error}")
                result.failures.append(f"{config.run_dir}: {error}")
                continue
            except (KeyboardInterrupt, SystemExit):
                _logger.info(f"all runs of {folder} go on with the same command and --resume")
                raise
            result.folders.append(str(finished.folder))
            result.seeds.append(config.seed)
            result.figures.append({name: float(value) for name, value in finished.figures.items()})
        results.append(result)
    figure = _figure(settings[0].config, results)
    results.sort(key=lambda result: _rank(result, figure))
    file = folder / ("grid.json" if settings[0].values else "seeds.json")
    if processes.first:
        with RunFolder(folder).writing(), atomic_write(file) as opened:
            opened.write(as_json(results, figure))
    _logger.info(f"{render(results, figure)}\nall figures in {file}")
    return results


def check_key(key: str) -> None:
    """Raises BertjaxError where a grid cannot have a key."""
    if key not in TYPES:
        raise BertjaxError(f"grid: {describe_unknown(key, command='bertjax finetune')}")
    if key in _NOT_OURS or key.startswith("distributed."):
        raise BertjaxError(f"grid: the runs of a grid share {key}; give it once, as --{key}")


def render(results: Sequence[Result], figure: str) -> str:
    """Returns the table: a line a setting, with each figure's mean and deviation over its runs.

    Args:
      figure: the one that they are sorted by.
    """
    names = list(next((result.means for result in results if result.means), {}))
    names.sort(key=lambda name: name != figure)
    keys = list(results[0].values)
    rows = [[*keys, "runs", *names]]
    for result in results:
        told = [_told(*result.means[name]) if name in result.means else "-" for name in names]
        rows.append([*result.values.values(), str(len(result.figures)), *told])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    failed = [f"not counted: {failure}" for result in results for failure in result.failures]
    spread = ", mean ± standard deviation over seeds" if any(len(result.figures) > 1 for result in results) else ""
    order = f", the best {figure} first" if len(results) > 1 else ""
    return "\n".join([f"held out{spread}{order}:", *(f"  {line}" for line in lines), *failed])


def as_json(results: Sequence[Result], figure: str) -> str:
    """Returns all that the table tells, and of each run too, as JSON."""
    told = []
    for result in results:
        means = {name: {"mean": mean, "deviation": deviation} for name, (mean, deviation) in result.means.items()}
        runs = []
        for folder, seed, figures in zip(result.folders, result.seeds, result.figures, strict=True):
            numbers = {name: value if math.isfinite(value) else None for name, value in figures.items()}
            runs.append({"folder": folder, "seed": seed, "figures": numbers})
        told.append({"values": result.values, "figures": means, "runs": runs, "failures": result.failures})
    return json.dumps({"sorted_by": figure, "settings": told}, indent=2, ensure_ascii=False) + "\n"


def _with(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with these values of dotted keys."""
    changed: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        changed.setdefault(section, {})[name] = value
    top = changed.pop("", {})
    sections = {name: dataclasses.replace(getattr(config, name), **keys) for name, keys in changed.items()}
    return dataclasses.replace(config, **top, **sections)


def _plan(setting: Setting, seeds: int | None) -> list[Config]:
    """The configurations of a setting's runs."""
    config, folder = setting.config, Path(setting.config.run_dir)
    if setting.values:
        folder /= ",".join(f"{key}={re.sub(r'[^A-Za-z0-9_.+-]+', '_', value)}" for key, value in setting.values.items())
    if seeds is None:
        return [dataclasses.replace(config, run_dir=str(folder))]
    # All hold out the same examples: figures of others would differ by more than the seed.
    task = dataclasses.replace(config.task, split_seed=config.split_seed)
    return [
        dataclasses.replace(config, run_dir=str(folder / f"seed-{seed}"), seed=seed, task=task)
        for seed in range(config.seed, config.seed + seeds)
    ]


def _with_commit(config: Config) -> Config:
    """Returns the configuration with a name on the hub that means the same model to all runs."""
    return config if config.init_from is None else dataclasses.replace(config, init_from=pinned(config.init_from))


def _check_models(settings: Sequence[Setting], typed: Collection[str]) -> None:
    """Raises BertjaxError where a setting does not suit the model that it starts from, or there is none."""
    for config in [setting.config for setting in settings]:
        if config.init_from is not None:
            with_model(config, model_of_init(config, typed), typed).check_model()


def _check_folders(folder: Path, configs: Sequence[Config], *, resume: bool) -> None:
    """Raises BertjaxError where the folder is a single run's, or runs would meet in one, or find it taken."""
    if RunFolder(folder).begun:
        raise BertjaxError(f"{folder} is the folder of a single run; give another --run_dir for several")
    names = [config.run_dir for config in configs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BertjaxError(f"two runs would have the folder {twice[0]}; give each value once")
    for run in [RunFolder(name, command="finetune") for name in names]:
        if not (resume and run.begun):
            run.check_free(resume=resume)


def _figure(config: Config, results: Sequence[Result]) -> str:
    names = list(next((result.means for result in results if result.means), {}))
    if not names:
        raise BertjaxError("no run has come to its end; the warnings above tell why")
    return config.eval.best if config.eval.best in names else names[0]


def _rank(result: Result, figure: str) -> float:
    mean = result.means.get(figure, (math.nan, None))[0]
    return math.inf if math.isnan(mean) else mean if is_better_less(figure) else -mean


def _told(mean: float, deviation: float | None) -> str:
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"
