"""One process of a run, started as a person would start it, watched from outside, and stopped by a signal."""

import signal
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.stress.phases import Phase, Watch
from bertjax.config import Config
from bertjax.config.recipes import save_config
from bertjax.errors import BertjaxError
from bertjax.storage.interpreter import module_command

_PATIENCE = 600.0  # seconds, after which a process hangs
_GLANCE = 0.002  # seconds from one look at a process to the next


class Aim(NamedTuple):
    """A moment to strike: so many seconds after a phase is entered for the nth time."""

    phase: Phase
    nth: int
    delay: float


class Hit(NamedTuple):
    """A signal sent to a process: where it found it, and how that ended."""

    signal: str
    phase: Phase
    seconds: float  # until the process was gone
    exit_code: int
    steps_lost: int  # steps that were logged and are not in the newest checkpoint


class RunProcess:
    """`bertjax pretrain --resume`, which begins where there is no run yet. Leaving the context kills it.

    Args:
      config: as `Watch` needs it.
      folder: for the recipe and for what the process says.
    """

    def __init__(self, config: Config, folder: Path, environment: Mapping[str, str]):
        recipe, output, self._errors = folder / "recipe.yaml", folder / "output.txt", folder / "errors.txt"
        self._checkpoints = Path(config.run_dir) / "checkpoints"
        save_config(config, recipe)
        command = module_command("bertjax", "pretrain", "--config", str(recipe), "--resume")
        output.unlink(missing_ok=True)
        self.watch = Watch(config, output)
        self._started = time.monotonic()
        with open(output, "wb") as out, open(self._errors, "wb") as err:
            self._process = subprocess.Popen(command, stdout=out, stderr=err, env=dict(environment))

    def __enter__(self) -> "RunProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def look_on(self) -> dict[Phase, float]:
        """Waits for the end and returns the median seconds of a stay in every phase."""
        stays: dict[Phase, list[float]] = {phase: [] for phase in Phase}
        phase, since = Phase.STARTING, time.monotonic()
        while self._process.poll() is None:
            if (now := self.watch.phase()) != phase:
                stays[phase].append(time.monotonic() - since)
                phase, since = now, time.monotonic()
            self._pause()
        stays[phase].append(time.monotonic() - since)
        return {phase: statistics.median(seconds or [0.0]) for phase, seconds in stays.items()}

    def wait_for(self, aim: Aim) -> bool:
        """Returns at the moment to strike with True, or at the process's end with False."""
        entered, before = 0, None
        while self._process.poll() is None:
            phase = self.watch.phase()
            entered += phase == aim.phase != before
            if entered == aim.nth:
                time.sleep(aim.delay)
                return self._process.poll() is None
            before = phase
            self._pause()
        return False

    def strike(self, number: signal.Signals) -> Hit:
        """Sends a signal and waits for the end. Where it is not SIGKILL, the phase is that of just before."""
        phase, start = self.watch.phase(), time.monotonic()
        self._process.send_signal(number)
        try:
            exit_code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise BertjaxError(f"a run does not stop after {number.name}; see {self._errors.parent}") from None
        seconds = time.monotonic() - start
        if number == signal.SIGKILL:
            phase = self.watch.phase()  # now that nothing moves any more
        return Hit(number.name, phase, seconds, exit_code, max(0, self.watch.step() - self._newest_checkpoint()))

    def failure(self) -> str | None:
        """Returns why a process that ended by itself failed; None where it did not."""
        if self._process.returncode == 0:
            return None
        said = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
        return f"a run ended with code {self._process.returncode}, saying: {said[-1]}"

    def _pause(self) -> None:
        time.sleep(_GLANCE)
        if time.monotonic() > self._started + _PATIENCE:
            raise BertjaxError(f"a run hangs {self.watch.phase()}; see what it said in {self._errors.parent}")

    def _newest_checkpoint(self) -> int:
        return max((int(path.name) for path in self._checkpoints.glob("*") if path.name.isdecimal()), default=0)
