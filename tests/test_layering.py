"""The house's rules, read from the source: which floor imports which, and what nobody may do (CONTRIBUTING.md)."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CODE_RUNNERS = {"eval", "exec", "compile", "__import__", "import_module"}

# From the ground up; a package imports only from those before it. Beside each: the packages of others that it may use.
FLOORS = {
    "errors": "",
    "storage": "filelock fsspec",
    "config": "jsonargparse yaml",
    "data": "numpy scipy tokenizers sentencex pyarrow huggingface_hub tqdm",
    "parallel": "numpy jax",
    "ops": "jax",
    "models": "numpy jax flax",
    "runs": "numpy jax orbax matplotlib tensorboardX",
    "hub": "numpy jax safetensors huggingface_hub",
    "inference": "numpy jax pyarrow matplotlib tqdm",
    "objectives": "numpy jax optax",
    "evaluation": "numpy jax",
    "train": "numpy jax optax tqdm",
    "cli": "numpy tqdm",
}


def imports(tree: ast.Module) -> Iterator[str]:
    """Full names of what is imported anywhere: in functions and under `if TYPE_CHECKING` too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module if not node.level else '(relative)'}.{alias.name}" for alias in node.names)


def complaints(module: str, source: str) -> Iterator[str]:
    tree, order, floor = ast.parse(source), list(FLOORS), module.split(".")[1]
    for name in imports(tree):
        package, _, rest = name.partition(".")
        if package in PICKLES:
            yield f"unpickles by {name}"
        elif package == "bertjax":
            room = rest.split(".")[0]
            if room in order and order.index(room) > order.index(floor):
                yield f"imports {name}, which is not below it"
        elif package not in sys.stdlib_module_names and package not in FLOORS[floor].split():
            yield f"imports {package}, which is not for it"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in CODE_RUNNERS:
            yield f"uses {node.id}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield "allows pickle"


def modules() -> dict[str, Path]:
    files = (ROOT / "bertjax").rglob("*.py")
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}


def test_each_package_imports_from_the_floors_below() -> None:
    found = {
        name: said
        for name, file in modules().items()
        if name.split(".")[1] in FLOORS and (said := list(complaints(name, file.read_text(encoding="utf-8"))))
    }
    assert found == {}


def test_the_files_of_a_package_form_no_circle() -> None:
    graph = {name: set(imports(ast.parse(file.read_text(encoding="utf-8")))) for name, file in modules().items()}
    sorter = graphlib.TopologicalSorter()
    for name, imported in graph.items():
        sorter.add(name, *(other for other in graph for said in imported if f"{said}.".startswith(f"{other}.")))
    sorter.prepare()  # raises CycleError
