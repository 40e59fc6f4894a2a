"""Nothing in the house unpickles, or runs code from data."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNSAFE = set("pickle cPickle _pickle cloudpickle dill joblib marshal shelve eval exec compile __import__".split())
FILES = [file for folder in ("bertjax", "benchmarks", "scripts") for file in (ROOT / folder).rglob("*.py")]


def dangers(source: str) -> set[str]:
    """What a file imports, or calls, that could run code from data."""
    found = {"allow_pickle"} if "allow_pickle=" in source.replace("allow_pickle=False", "") else set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names} & UNSAFE
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module).split(".")[0]} & UNSAFE
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found |= {node.id} & (UNSAFE | {"import_module"})
    return found


def test_no_file_is_dangerous() -> None:
    assert len(FILES) > 100
    assert {file: found for file in FILES if (found := dangers(file.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", {"pickle"}),
        ("def f():\n from pickle import loads", {"pickle"}),
        ("eval('1')", {"eval"}),
        ("x = exec", {"exec"}),
        ("np.load(f, allow_pickle=flag)", {"allow_pickle"}),
        ("np.load(f, allow_pickle=False)\nmodel.eval()\njax.eval_shape(f)", set()),
    ],
)
def test_the_check_finds_what_it_looks_for(source: str, found: set[str]) -> None:
    assert dangers(source) == found
