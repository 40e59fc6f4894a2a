"""Stands in for starting another Python: what a command would do there is done here, by programs that are compiled."""

import contextlib
import importlib
import io
import re
import subprocess
import types
from typing import Any

import pytest


def run_here(command: list[str], *, capture_output: bool = False, **_: Any) -> subprocess.CompletedProcess[str]:
    """Calls the `main` of the module that `bertjax.storage.interpreter.module_command` would run."""
    (module,) = re.findall(r"run_module\('([\w.]+)'", command[3])
    main = importlib.import_module("bertjax.cli.main" if module == "bertjax" else module).main
    argv, out = command[4:], io.StringIO()
    with contextlib.redirect_stdout(out) if capture_output else contextlib.nullcontext():
        code = main(argv) if module == "bertjax" else main(*argv)
    return subprocess.CompletedProcess(command, code or 0, out.getvalue(), "")


def start_no_process(monkeypatch: pytest.MonkeyPatch, starter: types.ModuleType) -> None:
    """Lets a module, which starts processes by `subprocess.run`, do everything in this one."""
    monkeypatch.setattr(starter, "subprocess", types.SimpleNamespace(run=run_here, PIPE=subprocess.PIPE))
