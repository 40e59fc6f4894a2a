"""The public names: found when first asked for, and told to type checkers as they are."""

import ast
import inspect

import pytest

import bertjax


def test_public_names_are_what_their_modules_hold() -> None:
    tree = ast.parse(inspect.getsource(bertjax))
    told = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("bertjax.")
        for alias in node.names
    }
    assert told.keys() == set(bertjax.__all__) == set(dir(bertjax))
    for name, path in told.items():
        found = getattr(bertjax, name)
        assert found.__name__ == name and f"{found.__module__}.{name}".startswith(path.rpartition(".")[0])


def test_other_names_are_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        bertjax.nothing  # noqa: B018
