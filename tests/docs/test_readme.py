"""The README's Python holds: it runs as it is printed, and gives arrays of the shapes that its comments tell."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bertjax
from bertjax.config import Config

README = Path(__file__).parents[2] / "README.md"
SENTENCES = ("a crane is flying", "the crane driver came", "he just left", "the bird left", "a driver is flying")


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: Callable[[int], None]) -> None:
    devices(1)
    monkeypatch.chdir(tmp_path)
    for split in ("train", "valid", "test"):
        text = f" {' . '.join(SENTENCES)} . \n" * 20
        (tmp_path / f"wiki.{split}.tokens").write_text(text, encoding="utf-8")
    load_config = bertjax.load_config

    def shortened(recipe: str, overrides: list[str]) -> Config:
        """The recipe with the options that are printed, but on a text of ours, for two steps of its model's shape."""
        load_config(recipe, overrides)
        short = [f"data.path={tmp_path}", "train.steps=2", "optim.warmup_steps=0", "train.batch_size=8", "eval.every=0"]
        return load_config(recipe, [*overrides, *short, "checkpoint.every=0", "logging.report=false"])

    monkeypatch.setattr(bertjax, "load_config", shortened, raising=False)
    (block,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    promised = []
    for statement in ast.parse(block).body:
        code = ast.get_source_segment(block, statement) or ""
        if not isinstance(statement, ast.Expr):
            exec(code, names)
            continue
        value = eval(code, names)
        comment = block.splitlines()[(statement.end_lineno or 0) - 1].partition("#")[2]
        if isinstance(value, np.ndarray):
            promised.append(list(value.shape))
            assert str(list(value.shape)) in comment, code
        else:
            assert "five for each mask" in comment and [len(guesses) for guesses in value] == [5]
    assert promised == [[1, 6, 128], [1, 10, 128], [2, 128]]
    assert names["run_dir"].is_dir() and names["run_dir"].parent == Path("runs")
