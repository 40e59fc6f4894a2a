"""The wheel, in an environment of its own and an empty folder: no checkout, and a run from a recipe that it brings."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
SMALL = {
    "data.source": "python-docs",
    "tokenizer.vocab_size": "500",
    "model.hidden_size": "16",
    "model.num_layers": "1",
    "model.intermediate_size": "16",
    "train.steps": "2",
    "train.batch_size": "8",
    "train.gradient_accumulation_steps": "1",
    "logging.report": "false",
}


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command as a user would who has no checkout, and returns what it prints on stdout."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what packages are built from: building leaves files behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("bertjax", "configs", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    run(sys.executable, "-m", "pip", "wheel", ".", *options, "--wheel-dir", folder, cwd=source)
    (built,) = folder.iterdir()
    return built


def test_wheel_holds_the_package_and_its_recipes_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name for name in names if name.endswith(".yaml")} == {f"bertjax/configs/{name}" for name in RECIPES}
    pages = {"runs/templates/report.html", "runs/templates/style.css", "inference/templates/explore.html"}
    assert {f"bertjax/{page}" for page in pages} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"bertjax"} and "bertjax/py.typed" in names


def test_sdist_holds_the_recipes(source: Path, tmp_path: Path) -> None:
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, tmp_path, cwd=source)
    (built,) = tmp_path.iterdir()
    with tarfile.open(built) as archive:
        files = {member.name.split("/", 1)[-1] for member in archive if member.isfile()}
    assert files >= {f"bertjax/configs/{name}" for name in RECIPES}


def test_pretrain_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    venv.create(environment, symlinks=True)
    empty.mkdir()
    python = environment / "bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=empty)
    # What bertjax depends on comes from this environment; whether bertjax comes from the wheel is asserted.
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=empty).strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import bertjax; print(bertjax.__file__)", cwd=empty).strip()
    assert Path(where) == packages / "bertjax/__init__.py"

    options = [f"--{key}={value}" for key, value in SMALL.items()]
    out = run(environment / "bin/bertjax", "pretrain", "--config", "textbook", *options, cwd=empty)
    assert "step 2/2" in out and "bertjax encode runs/textbook" in out
    assert (empty / "runs/textbook/config.yaml").is_file() and (empty / "runs/textbook/checkpoints/2").is_dir()
