"""The tutorial: it runs, uses every public name, and shows outputs that tell nothing of the machine that made them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import bertjax

FILE = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"
# What is looked at here does not depend on how well is learned, which is what most of the time goes for.
SHORTER = {
    '"train.steps=250"': '"train.steps=20", "model.num_layers=1"',
    '"eval.every=50"': '"eval.every=10"',
    '("texts", 300, 0)': '("texts", 60, 0)',
    "train=dataclasses.replace(config.train, steps=40)": "train=dataclasses.replace(config.train, steps=22)",
    '"train.epochs=4"': '"train.epochs=1"',
}
MAGIC = re.compile(r"^[%!].*$", re.MULTILINE)


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(FILE, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def values(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """What the cells' last lines give, as text."""
    for cell in code(notebook):
        yield from (output.data["text/plain"] for output in cell.outputs if output.output_type == "execute_result")


def test_every_public_name_is_used_or_told_of(notebook: nbformat.NotebookNode) -> None:
    used = {
        node.attr
        for cell in code(notebook)
        for node in ast.walk(ast.parse(MAGIC.sub("", cell.source)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bertjax"
    }
    told = {
        name
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for name in re.findall(r"bertjax\.(\w+)", cell.source)
    }
    assert used <= set(bertjax.__all__) == (used | told) & set(bertjax.__all__) and len(used) > len(told)


def test_it_runs(notebook: nbformat.NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")  # as a user has it
    ran = nbformat.from_dict({**notebook, "cells": [{**cell} for cell in notebook.cells]})
    for setting, shorter in SHORTER.items():
        (cell,) = [cell for cell in code(ran) if setting in cell.source]
        cell.source = cell.source.replace(setting, shorter)
    with monkeypatch.context() as patched:
        patched.delenv("PYTEST_CURRENT_TEST")  # with it a kernel does not show what is written to its file descriptors
        NotebookClient(ran, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert_sound(ran)
    assert len(list(values(ran))) == len(list(values(notebook)))
    assert [pictures(cell) for cell in code(ran)] == [pictures(cell) for cell in code(notebook)]


def test_what_it_shows_was_run_to_the_end_and_tells_nothing_of_a_machine(notebook: nbformat.NotebookNode) -> None:
    assert_sound(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert not any("execution" in cell.metadata for cell in notebook.cells)
    assert FILE.stat().st_size < 500_000


def assert_sound(ran: nbformat.NotebookNode) -> None:
    """One picture of the losses, drawn again and again; equal vectors where equal ones are promised; no warnings."""
    (training,) = [cell for cell in code(ran) if "plot=True" in cell.source]
    assert pictures(training) == 1
    shapes = [value for value in values(ran) if re.fullmatch(r"\(1, \d+, 64\)", value)]
    assert shapes == ["(1, 6, 64)", "(1, 10, 64)"]
    assert [value for value in values(ran) if value in ("True", "False")] == ["True", "True"]
    streams = [output for cell in code(ran) for output in cell.outputs if output.output_type == "stream"]
    said = "".join(stream.text for stream in streams if stream.name == "stderr")
    assert said.strip() == "stopping after this step, then saving; the same signal again stops at once"
    shown = "".join(stream.text for stream in streams if stream.name == "stdout")
    assert not re.search(r"(?<![\w.])/\w+/", shown) and "Warning" not in shown
