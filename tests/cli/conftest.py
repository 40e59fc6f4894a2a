"""The command line, called in this process, and a run that its tests share."""

from pathlib import Path

import pytest
from command_line import Cli, Outcome, options

from bertjax.cli.main import main
from bertjax.config import Config


@pytest.fixture(autouse=True)
def shown() -> None:
    """Takes the place of the fixture that shows in other tests what is logged: the command line shows it by itself."""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the program in this process."""

    def call(*argv: str | Path) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(word) for word in argv])
        except SystemExit as error:  # how argparse ends a --help
            code = int(error.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def memory() -> dict[str, tuple[Path, Outcome]]:
    return {}


@pytest.fixture
def trained(memory: dict[str, tuple[Path, Outcome]], tiny: Config, cli: Cli) -> tuple[Path, Outcome]:
    """The `tiny` run and what its training printed; the first test that asks trains it, for all."""
    if not memory:
        outcome = cli("pretrain", *options(tiny))
        assert outcome.code == 0, outcome
        memory["run"] = (Path(tiny.run_dir), outcome)
    return memory["run"]
