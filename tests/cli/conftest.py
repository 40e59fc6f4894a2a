"""The command line shows what is logged by itself."""

import pytest


@pytest.fixture(autouse=True)
def shown() -> None:
    """Takes the place of the fixture that shows it in other tests."""
