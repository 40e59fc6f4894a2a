"""Several processes from one command: whose output is seen, which exit code counts, where signals go."""

import os
import signal
import subprocess
import sys
import time

import pytest

from bertjax.parallel.launch import launch

STAND_IN = """
import os, signal, sys, time
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
index = int(options["--distributed.process_id"])
print(f"out {index} of {options['--distributed.num_processes']}", flush=True)
print(f"err {index}", file=sys.stderr, flush=True)
mode = sys.argv[1]
if mode == "fail":
    sys.exit(3) if index == 1 else time.sleep(60)
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL) if index == 2 else time.sleep(60)
if mode == "signals":
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(index))
    signal.signal(signal.SIGINT, lambda *_: sys.exit("twice"))
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
"""

LAUNCHER = f"""
import sys
from bertjax.parallel import launch
launch._GRACE = 0.5
sys.exit(launch.launch([sys.executable, "-c", {STAND_IN!r}, sys.argv[1]], 3, environment={{}}))
"""


def started(mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LAUNCHER, mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("mode, code", [("go well", 0), ("fail", 3), ("killed", 128 + signal.SIGKILL)])
def test_one_output_and_the_first_failing_code(mode: str, code: int) -> None:
    start, launcher = time.monotonic(), started(mode)
    try:
        out, err = launcher.communicate(timeout=30)
    finally:
        launcher.kill()
        launcher.communicate()
    assert launcher.returncode == code
    assert out == "out 0 of 3\n"
    assert sorted(err.splitlines()) == ["[1] err 1", "[2] err 2", "err 0"]
    assert time.monotonic() - start < 15  # those that would sleep for a minute are ended


def test_signals_go_to_all() -> None:
    launcher = started("signals")
    assert launcher.stderr is not None
    ready = 0
    while ready < 3:
        ready += launcher.stderr.readline().endswith("ready\n")
    launcher.send_signal(signal.SIGUSR1)
    _, err = launcher.communicate(timeout=30)
    assert launcher.returncode in (1, 2) and "twice" not in err


def test_cores_are_shared_out(capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", "import os; print(os.environ['NPROC'])"]
    before = signal.getsignal(signal.SIGINT)
    for given in ({}, {"NPROC": "7"}):
        assert launch(command, 1, environment=given) == 0
        assert capfd.readouterr().out == f"{given.get('NPROC', len(os.sched_getaffinity(0)))}\n"
    assert signal.getsignal(signal.SIGINT) == before
