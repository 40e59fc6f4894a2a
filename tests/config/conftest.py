"""Recipes written for a test, and why they are refused."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bertjax.config.recipes import load_config
from bertjax.errors import BertjaxError


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Writes a recipe and returns its path."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Returns the one line that says why a recipe is refused."""

    def why(recipe: str | Path, overrides: Sequence[str] = ()) -> str:
        with pytest.raises(BertjaxError) as caught:
            load_config(recipe, overrides)
        message = str(caught.value)
        assert message and message == " ".join(message.splitlines())
        return message

    return why
