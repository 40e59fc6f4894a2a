"""The floors of the house, read from its source: which package imports which, and what of others (CONTRIBUTING.md)."""

import ast
import graphlib
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the ground up; a package imports only from those before it. Beside each: the packages of others that it may use.
FLOORS = {
    "errors": "",
    "storage": "filelock fsspec huggingface_hub",
    "config": "jsonargparse yaml",
    "data": "numpy scipy tokenizers sentencex pyarrow backports compression huggingface_hub tqdm ray",
    "parallel": "numpy jax",
    "ops": "jax",
    "models": "numpy jax flax",
    "runs": "numpy jax orbax matplotlib tensorboardX jinja2 markupsafe IPython",
    "hub": "numpy jax safetensors huggingface_hub onnx onnxruntime",
    "inference": "numpy scipy jax pyarrow usearch matplotlib tqdm",
    "serving": "numpy jax msgspec prometheus_client starlette uvicorn",
    "objectives": "numpy jax optax",
    "evaluation": "numpy scipy jax",
    "train": "jax optax tqdm",
    "cli": "numpy tqdm",
}
FILES = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in (ROOT / "bertjax").rglob("*.py")}


def imports(source: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = ("" if isinstance(node, ast.Import) else f"{'.' * node.level}{node.module}." for node in nodes)
    return {module + alias.name for module, node in zip(modules, nodes, strict=True) for alias in node.names}


def complaints(floor: str, source: str) -> set[str]:
    may = list(FLOORS)[: list(FLOORS).index(floor) + 1] + FLOORS[floor].split() + list(sys.stdlib_module_names)
    return {name for name in imports(source) if name.removeprefix("bertjax.").split(".")[0] not in may}


def test_each_package_imports_from_the_floors_below() -> None:
    said = {name: complaints(name.split(".")[1], FILES[name].read_text()) for name in FILES if name.count(".") > 1}
    assert {name: found for name, found in said.items() if found} == {}
    bad = "from bertjax.train import x\nfrom .x import y\nimport bertjax, json\ndef f():\n import numpy.linalg"
    assert complaints("ops", bad) == {"bertjax.train.x", ".x.y", "bertjax", "numpy.linalg"}


def test_the_packages_are_those_of_the_table_and_none_is_most_of_the_house() -> None:
    lines = Counter(name.split(".")[1] for name, file in FILES.items() for _ in file.read_text().splitlines() or [""])
    assert lines.keys() - {"__init__", "__main__"} == FLOORS.keys() and max(lines.values()) < 0.3 * lines.total()


def test_the_files_of_a_package_form_no_circle() -> None:
    graph = {name: imports(file.read_text()) for name, file in FILES.items()}
    graph = {name: {f for f in FILES for one in graph[name] if f"{one}.".startswith(f"{f}.")} for name in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError
