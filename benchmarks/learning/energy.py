"""Energy in joules, where the machine tells of it."""

import contextlib
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType

_POWERCAP = Path("/sys/class/powercap")
_EVERY = 200  # milliseconds between two looks at the power of GPUs


class Meter:
    """Counts what processors and GPUs draw from its start on, as far as they tell; a context, which ends the looking.

    Processors: Linux's counters of energy, one for each package, memory left out (Intel's RAPL, and AMD's under the
    same name; most systems let only root read them). They begin anew after some hundred thousand joules, so `joules` is
    to be asked more often than that. GPUs: the power that nvidia-smi tells several times a second, of all there are.
    """

    def __init__(self, powercap: Path = _POWERCAP):
        self._packages = [package for path in sorted(powercap.glob("intel-rapl:*")) if (package := _package(path))]
        self._gpus = _Gpus()

    def __enter__(self) -> "Meter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gpus.close()

    def joules(self) -> dict[str, float]:
        """Returns the joules so far of those that tell: "processors", "GPUs"."""
        found = {}
        if self._packages:
            found["processors"] = sum(package.joules() for package in self._packages)
        if self._gpus.tell:
            found["GPUs"] = self._gpus.joules
        return found


class _Package:
    def __init__(self, folder: Path):
        self._file, self._used = folder / "energy_uj", 0
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = int(self._file.read_text())

    def joules(self) -> float:
        now = int(self._file.read_text())
        self._used += (now - self._last) % (self._range + 1)
        self._last = now
        return self._used / 1e6


def _package(folder: Path) -> _Package | None:
    """Opens a package's counter; None for a part of a package, such as intel-rapl:0:1, and where it may not be read."""
    if folder.name.count(":") > 1:
        return None
    with contextlib.suppress(OSError, ValueError):
        return _Package(folder)
    return None


class _Gpus:
    """Adds up the power that nvidia-smi tells, in another thread."""

    def __init__(self) -> None:
        self.joules, self.tell = 0.0, False
        query = ["nvidia-smi", "--query-gpu=index,power.draw", "--format=csv,noheader,nounits", f"-lms={_EVERY}"]
        try:
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:  # no such program
            self._thread = None
            return
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        last: dict[str, float] = {}
        assert self._process.stdout is not None
        for line in self._process.stdout:
            index, _, watts = line.strip().partition(", ")
            now = time.perf_counter()
            with contextlib.suppress(ValueError):  # "[N/A]"
                self.joules += float(watts) * (now - last.get(index, now))
                last[index], self.tell = now, True

    def close(self) -> None:
        if self._thread is not None:
            self._process.kill()
            self._process.wait()
            self._thread.join()
            if self._process.stdout is not None:
                self._process.stdout.close()
