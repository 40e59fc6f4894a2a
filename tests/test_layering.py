"""The house's rules, read from the source: who may import whom, and what nobody may do."""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A file imports only from strictly lower floors.
FLOORS = {
    "bertjax.errors": 0,
    "bertjax.data": 0,
    "bertjax.arguments": 1,
    "bertjax.config": 1,
    "bertjax.objectives": 1,
    "bertjax.losses": 1,
    "bertjax.sharding": 1,
    "bertjax.roll": 1,
    "bertjax.launch": 1,
    "bertjax.dropout": 1,
    "bertjax.products": 1,
    "bertjax.interrupts": 1,
    "bertjax.lock": 1,
    "bertjax.budget": 1,
    "bertjax.manifest": 1,
    "bertjax.lines": 1,
    "bertjax.events": 1,
    "bertjax.checkpoint": 2,
    "bertjax.data.wikitext": 1,
    "bertjax.data.python_docs": 1,
    "bertjax.data.tokenizer": 1,
    "bertjax.data.tokenizer_files": 2,
    "bertjax.data.cache": 1,
    "bertjax.data.random": 1,
    "bertjax.data.packing": 1,
    "bertjax.data.shares": 1,
    "bertjax.recipe": 2,
    "bertjax.blockwise": 2,
    "bertjax.watch": 2,
    "bertjax.distributed": 2,
    "bertjax.model": 2,
    "bertjax.optim": 2,
    "bertjax.data.formats": 1,
    "bertjax.data.files": 2,
    "bertjax.data.sources": 3,
    "bertjax.data.corpus": 2,
    "bertjax.data.shard_worker": 3,
    "bertjax.data.building": 4,
    "bertjax.data.spans": 2,
    "bertjax.data.masking": 3,
    "bertjax.data.counts": 4,
    "bertjax.data.sequences": 2,
    "bertjax.data.pairs": 3,
    "bertjax.data.passages": 3,
    "bertjax.data.batches": 4,
    "bertjax.data.frequencies": 5,
    "bertjax.data.prepare": 5,
    "bertjax.train": 5,
    "bertjax.hub": 3,
    "bertjax.foreign": 4,
    "bertjax.run": 6,
    "bertjax.evaluate": 8,
    "bertjax.pretrained": 7,
    "bertjax.texts": 4,
    "bertjax.inference": 5,
    "bertjax.encode": 8,
    "bertjax.stablehlo": 8,
    "bertjax.vector_files": 1,
    "bertjax.encode_file": 9,
    "bertjax.learned": 6,
    "bertjax.progress": 7,
    "bertjax.report": 7,
    "bertjax.neighbours": 8,
    "bertjax.start": 9,
    "bertjax.opening": 9,
    "bertjax.pretraining": 10,
    "bertjax.bench": 0,
    "bertjax.bench.contest": 1,
    "bertjax.bench.table": 1,
    "bertjax.bench.ceiling": 1,
    "bertjax.bench.starting": 1,
    "bertjax.bench.operations": 5,
    "bertjax.bench.text": 6,
    "bertjax.bench.shared_folder": 6,
    "bertjax.bench.training_peers": 6,
    "bertjax.bench.encoding_peers": 7,
    "bertjax.bench.ours": 9,
    "bertjax.bench.benches": 8,
    "bertjax.bench.communication": 8,
    "bertjax.bench.scaling": 9,
    "bertjax.bench.growing": 10,
    "bertjax.bench.growth": 9,
    "bertjax.bench.worker": 11,
    "bertjax.bench.command": 11,
    "bertjax.trials": 0,
    "bertjax.trials.phases": 2,
    "bertjax.trials.process": 3,
    "bertjax.trials.comparison": 7,
    "bertjax.trials.torture": 8,
    "bertjax.trials.soak": 8,
    "bertjax.trials.corpus": 8,
    "bertjax.trials.streaming": 9,
    "bertjax.trials.ablate": 3,
    "bertjax.trials.energy": 1,
    "bertjax.trials.speedrun": 10,
    "bertjax.trials.command": 11,
    "bertjax.encode_commands": 11,
    "bertjax.cli": 12,
    "bertjax": 12,
    "bertjax.__main__": 13,
}

# The rooms that may import a package of others; one that is not here is a new dependency.
_JAX = {"losses", "sharding", "dropout", "products", "blockwise", "model", "optim", "train", "evaluate"}
_JAX |= {"checkpoint", "distributed", "run", "watch", "progress", "pretrained", "stablehlo", "pretraining"}
_JAX |= {"encode", "inference", "learned"}
_JAX |= {"bench.ceiling", "bench.ours", "bench.communication", "trials.comparison", "trials.speedrun", "start"}
_PEERS = {"bertjax.bench.training_peers", "bertjax.bench.encoding_peers"}  # an optional install
HOMES = {
    "jax": {f"bertjax.{room}" for room in _JAX},  # never one in data/
    "flax": {"bertjax.model"},
    "optax": {"bertjax.losses", "bertjax.optim", "bertjax.train"},
    "orbax": {"bertjax.checkpoint"},
    "matplotlib": {
        "bertjax.report",
        "bertjax.bench.growth",
        "bertjax.trials.soak",
        "bertjax.trials.corpus",
        "bertjax.neighbours",
    },
    "tokenizers": {"bertjax.data.tokenizer", "bertjax.data.tokenizer_files"},
    "pyarrow": {"bertjax.data.wikitext", "bertjax.data.formats", "bertjax.vector_files"},
    "scipy": {"bertjax.data.counts"},
    "sentencex": {"bertjax.data.files"},
    "jsonargparse": {"bertjax.recipe"},
    "yaml": {"bertjax.recipe"},
    "safetensors": {"bertjax.hub", "bertjax.foreign"},
    "tqdm": {
        "bertjax.progress",
        "bertjax.data.wikitext",
        "bertjax.data.files",
        "bertjax.data.building",
        "bertjax.encode_file",
    },
    "tensorboardX": {"bertjax.events"},
    "numpy": set(FLOORS),
    "torch": _PEERS,
    "transformers": _PEERS,
    "sentence_transformers": {"bertjax.bench.encoding_peers"},
    "onnxruntime": {"bertjax.bench.encoding_peers"},
}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def complaints(module: str, source: str) -> list[str]:
    """What a room's source does that it may not."""
    tree = ast.parse(source)
    found = list(dangers(tree))
    for name in imports(tree):
        package = name.split(".")[0]
        if package == "bertjax":
            room = room_of(name)
            if FLOORS[room] >= FLOORS[module]:
                found.append(f"imports {room}, which is not below it")
        elif package not in sys.stdlib_module_names and module not in HOMES.get(package, ()):
            found.append(f"imports {package}, which is not for it")
    if "import_module" in source and module != "bertjax":
        found.append("imports by a name that these checks cannot see")
    return found


def imports(tree: ast.Module) -> Iterator[str]:
    """Full names of what is imported anywhere: in functions and under `if TYPE_CHECKING` too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module if not node.level else "(relatively)"  # which is no package that anybody may import
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str:
    """The file behind `bertjax.train.fit`: the longest known beginning."""
    while name not in FLOORS:
        name = name.rpartition(".")[0]
    return name


def dangers(tree: ast.Module) -> Iterator[str]:
    yield from (f"unpickles by {name}" for name in imports(tree) if name.split(".")[0] in UNPICKLERS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in ("eval", "exec", "__import__"):
            yield f"uses {node.id}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield "allows pickle"


def rooms() -> dict[str, Path]:
    """Every file of the package by its module's name."""
    files = (ROOT / "bertjax").rglob("*.py")
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def test_every_file_has_a_floor():
    assert set(rooms()) == set(FLOORS)


@pytest.mark.parametrize("module", sorted(rooms().keys() & FLOORS.keys()))
def test_room(module):
    assert module.split(".")[-1] not in ("utils", "util", "common", "helpers", "misc")
    assert complaints(module, rooms()[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.name)
def test_scripts_are_thin_doors(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    assert list(dangers(tree)) == []
    assert set(imports(tree)) == {"sys", "bertjax.cli.program"}


@pytest.mark.parametrize(
    "module, source, complaint",
    [
        ("model", "from bertjax.train import TrainState", "imports bertjax.train, which is not below it"),
        ("model", "from bertjax import train", "imports bertjax.train, which is not below it"),
        ("model", "import bertjax.train as t", "imports bertjax.train, which is not below it"),
        ("train", "from bertjax.data import prepare", "imports bertjax.data.prepare, which is not below it"),
        ("run", "from bertjax import Encoder", "imports bertjax, which is not below it"),
        ("encode", "def f():\n from bertjax.evaluate import x", "imports bertjax.evaluate, which is not below it"),
        ("run", "if TYPE_CHECKING:\n import bertjax.encode", "imports bertjax.encode, which is not below it"),
        ("model", "from . import train", "imports (relatively), which is not for it"),
        ("model", "from .train import TrainState", "imports (relatively), which is not for it"),
        ("data.batches", "import jax.numpy as jnp", "imports jax, which is not for it"),
        ("data.prepare", "def f():\n from jax import Array", "imports jax, which is not for it"),
        ("data.corpus", "import optax", "imports optax, which is not for it"),
        ("train", "from flax import linen", "imports flax, which is not for it"),
        ("pretraining", "import orbax.checkpoint", "imports orbax, which is not for it"),
        ("cli", "import yaml", "imports yaml, which is not for it"),
        ("run", "import torch", "imports torch, which is not for it"),
        ("run", "importlib.import_module(x)", "imports by a name that these checks cannot see"),
        ("run", "import pickle", "unpickles by pickle"),
        ("run", "from pickle import loads", "unpickles by pickle.loads"),
        ("run", "eval('1')", "uses eval"),
        ("run", "x = exec", "uses exec"),
        ("run", "np.load(f, allow_pickle=True)", "allows pickle"),
        ("run", "np.load(f, allow_pickle=flag)", "allows pickle"),
    ],
)
def test_the_checks_find_what_they_look_for(module, source, complaint):
    assert complaints(f"bertjax.{module}", source) == [complaint]


def test_the_checks_let_pass_what_may_be():
    source = "import json\nimport jax.numpy\nimport flax.linen\nfrom bertjax.config import Config\njax.eval_shape(f)"
    assert complaints("bertjax.model", source + "\nnp.load(f, allow_pickle=False)\nmodel.eval()") == []


def test_public_names_are_what_their_rooms_hold():
    bertjax = importlib.import_module("bertjax")
    tree = ast.parse(rooms()["bertjax"].read_text(encoding="utf-8"))
    for_type_checkers = {name for name in imports(tree) if name.startswith("bertjax.")}
    found = {f"{getattr(bertjax, name).__module__}.{name}" for name in bertjax.__all__}
    assert found == for_type_checkers
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        bertjax.nothing  # noqa: B018
