"""One cluster for all tests of this folder, which `make test-slurm` runs: they take minutes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import started


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cluster's folder."""
    if "BERTJAX_SLURM" not in os.environ:
        pytest.skip("a cluster takes minutes: make test-slurm")
    folder = tmp_path_factory.mktemp("slurm")
    with started(folder):
        yield folder
