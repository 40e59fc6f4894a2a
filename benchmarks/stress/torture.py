"""Kills a run again and again and compares its end with that of a run left alone, bit for bit."""

import dataclasses
import itertools
import random
import shutil
import signal
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.stress.comparison import differences
from benchmarks.stress.phases import Phase
from benchmarks.stress.process import Aim, Hit, RunProcess
from bertjax.config import Config
from bertjax.errors import BertjaxError, ExitCode

_MOST_KILLS = 12  # of one run, before it is let go to its end

# The first kills aim at them in this order: what matters most, first.
_TARGETS = (
    Phase.SAVE,
    Phase.EVALUATION,
    Phase.CORPUS,
    Phase.STEP,
    Phase.COMPILING,
    Phase.ENDING,
    Phase.STARTING,
)


def torture(
    config: Config,
    folder: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    kills: int,
    seed: int,
    signals: tuple[signal.Signals, ...] = (signal.SIGKILL,),
) -> dict[str, Any]:
    """Returns a report: where the signals hit, how long a process took to stop, and what differed in the end.

    Args:
      config: a short run that evaluates and saves often, and logs every step; its folders are replaced.
      folder: an empty one, for all the runs.
      seed: of the moments to strike.
      signals: sent in turn. SIGKILL gives no time to save; after the others the process must have saved.

    Raises:
      BertjaxError: the run that is left alone fails, or a process hangs.
    """
    environment = {**environment, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    alone = _placed(config, folder, "alone")
    say("a run that is left alone")
    with RunProcess(alone, folder, environment) as process:
        durations = process.look_on()
        if failure := process.failure():
            raise BertjaxError(failure)
    aims, sent = _aims(random.Random(seed), durations), itertools.cycle(signals)
    hits: list[Hit] = []
    rounds: list[list[str]] = []
    while len(hits) < kills:
        tortured = _placed(config, folder, f"tortured-{len(rounds) + 1}")
        most = min(_MOST_KILLS, kills - len(hits))
        before = len(hits)
        failure = _run_to_the_end(tortured, folder, environment, aims, sent, hits, most)
        rounds.append([failure] if failure else differences(Path(tortured.run_dir), Path(alone.run_dir)))
        blows = ", ".join(hit.phase for hit in hits[before:]) or "never hit"
        say(f"run {len(rounds)}: {blows}; {'; '.join(rounds[-1]) or 'equal'} ({len(hits)} of {kills})")
    return _report(hits, rounds)


def _placed(config: Config, folder: Path, name: str) -> Config:
    data = dataclasses.replace(config.data, cache=str(folder / "cache"))
    return dataclasses.replace(config, run_dir=str(folder / name), data=data)


def _aims(rng: random.Random, durations: Mapping[Phase, float]) -> Iterator[Aim]:
    """Yields aims at each phase in turn, in a changing order; a moment after the phase's end hits the next one."""
    targets = list(_TARGETS)
    while True:
        for phase in targets:
            nth = rng.randint(1, 3) if phase in (Phase.STEP, Phase.EVALUATION, Phase.SAVE) else 1
            yield Aim(phase, nth, rng.random() * durations[phase])
        rng.shuffle(targets)


def _run_to_the_end(
    config: Config,
    folder: Path,
    environment: Mapping[str, str],
    aims: Iterator[Aim],
    signals: Iterator[signal.Signals],
    hits: list[Hit],
    most: int,
) -> str | None:
    """Strikes a run up to `most` times, starting it anew each time; `hits` grows. Returns why it could not end."""
    for aim in itertools.islice(aims, most):
        if aim.phase == Phase.CORPUS:
            shutil.rmtree(folder / "cache", ignore_errors=True)
        if aim.phase == Phase.COMPILING:
            shutil.rmtree(folder / "compiled", ignore_errors=True)
        with RunProcess(config, folder, environment) as process:
            if not process.wait_for(aim):
                return process.failure()
            hit = process.strike(next(signals))
        hits.append(hit)
        if fault := _fault(hit):
            return fault
    with RunProcess(config, folder, environment) as process:
        process.look_on()
        return process.failure()


def _fault(hit: Hit) -> str | None:
    """Returns what is wrong with how a process stopped, or None."""
    if hit.signal == "SIGKILL":
        return None
    # Until Python itself has started a signal does what it does to any process; at the end all may be done.
    early = hit.phase == Phase.STARTING and hit.exit_code == -signal.Signals[hit.signal]
    late = hit.phase == Phase.ENDING and hit.exit_code in (ExitCode.FINISHED, -signal.Signals[hit.signal])
    if hit.exit_code != ExitCode.STOPPED and not early and not late:
        return f"{hit.signal} {hit.phase} ended with code {hit.exit_code}"
    return f"{hit.signal} {hit.phase} lost {hit.steps_lost} steps" if hit.steps_lost > 1 else None


def render(report: dict[str, Any]) -> str:
    """Returns a table of where the signals hit, and what differed."""
    kind = "kills" if report["signals"].keys() == {"SIGKILL"} else "signals"
    lines = [f"{'phase':<20} {kind:>7}  seconds to stop: median, most"]
    for phase, count in report["hits"].items():
        stop = report["seconds_to_stop"].get(phase)
        lines.append(f"{phase:<20} {count:>7}" + (f"  {stop['median']:.2f}, {stop['most']:.2f}" if stop else ""))
    lines.append(f"{'together':<20} {sum(report['hits'].values()):>7}  in {report['rounds']} runs")
    if report["most_steps_lost"] is not None:
        lines.append(f"steps lost at most: {report['most_steps_lost']}")
    faults = report["differences"]
    lines += [f"DIFFERENT: {line}" for line in faults] or ["every run ended as the one left alone, bit for bit"]
    return "\n".join(lines)


def _report(hits: list[Hit], rounds: list[list[str]]) -> dict[str, Any]:
    by_phase = {phase: [hit for hit in hits if hit.phase == phase] for phase in Phase}
    return {
        "trial": "torture",
        "signals": dict(Counter(hit.signal for hit in hits)),
        "hits": {phase: len(its) for phase, its in by_phase.items()},
        "seconds_to_stop": {
            phase: {"median": statistics.median(seconds), "most": max(seconds)}
            for phase, its in by_phase.items()
            if (seconds := [hit.seconds for hit in its])
        },
        "most_steps_lost": max((hit.steps_lost for hit in hits if hit.signal != "SIGKILL"), default=None),
        "rounds": len(rounds),
        "differences": [f"run {number}: {line}" for number, found in enumerate(rounds, 1) for line in found],
    }
