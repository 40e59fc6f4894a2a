"""The parser of commands that take no recipe, and how every command treats the files it is told to write."""

import argparse
import atexit
import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from bertjax.config import MeshConfig
from bertjax.config.keys import RENAMED
from bertjax.errors import BertjaxError
from bertjax.parallel.clusters import step_of_many
from bertjax.storage.atomic import atomic_write


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose mistakes become the one line that every other mistake is.

    Options may stand anywhere: before, between and after what has no option.
    """

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Returns the arguments' values."""
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raises BertjaxError in place of ending the process."""
        for old, new in RENAMED.items():
            if f"--{old}" in message.replace("=", " ").split():
                raise BertjaxError(f"{old} is now {new}; give that")
        raise BertjaxError(f"{message}; '{self.prog} --help' tells what it takes")


def add_mesh(parser: Parser, default: str) -> None:
    """Adds the options of the mesh.

    Args:
      default: what it is where none is given, as a clause.
    """
    for axis in dataclasses.fields(MeshConfig):
        parser.add_argument(
            f"--mesh.{axis.name}", type=int, metavar="N", help=f"as for 'bertjax pretrain'; by default {default}"
        )


def add_precision(parser: Parser) -> None:
    """Adds the option of what matrix products multiply."""
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="precision of the inputs of matrix products (default: float32); bfloat16 is faster on GPUs, on CPUs "
        "with AMX and on AMD's with avx512_bf16, not on other CPUs",
    )


def mesh_of(args: argparse.Namespace) -> MeshConfig | None:
    """Returns the mesh that the options tell; None where none is given."""
    given = {axis.name: getattr(args, f"mesh.{axis.name}") for axis in dataclasses.fields(MeshConfig)}
    sizes = {name: size for name, size in given.items() if size is not None}
    return MeshConfig(**sizes) if sizes else None


def is_ours(out: Path) -> bool:
    """Returns whether this process is to write an output: of the tasks that `srun -n` starts for it, the first.

    The others have nothing to do. Which is the first, a file beside the output tells while that is being written.
    """
    step = step_of_many()
    folder = next((folder for folder in out.absolute().parents if folder.is_dir()), None)
    if step is None or folder is None:
        return True
    claim = folder / f".{out.name}.task-of-{step}"
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    except OSError:  # which will be told of when the output is written
        return True
    atexit.register(claim.unlink, missing_ok=True)
    return True


def check_new(option: str, path: Path, suffix: str = "") -> None:
    """Checks, before anything is computed, that a file can be made.

    Args:
      option: as it is typed, such as "--out".
      suffix: the ending that the name must have.

    Raises:
      BertjaxError: the suffix is another, something is there already, or there is no folder for it.
    """
    if suffix and path.suffix != suffix:
        raise BertjaxError(f"{option} {path} does not end in {suffix}; give a name that does")
    if os.path.lexists(path):
        raise BertjaxError(f"{option} {path} exists and is left as it is; give another name")
    if not path.parent.is_dir():
        raise BertjaxError(f"{option} {path}: there is no folder {path.parent}; make it first")


@contextlib.contextmanager
def new_file(option: str, path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Opens a file that appears under its name when it is whole.

    Raises:
      BertjaxError: it cannot be written.
    """
    try:
        with atomic_write(path, binary=binary, replace=False) as file:
            yield file
    except OSError as error:
        raise BertjaxError(f"cannot write {option} {path}: {error.strerror}; give another place") from error
