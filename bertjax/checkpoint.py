"""Checkpoints on Orbax: saved in the background, each whole or not there at all."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from bertjax.errors import BertjaxError


class Checkpoints:
    """The numbered checkpoints of a folder. Use as a context manager: leaving it waits for the last save.

    A checkpoint is a dict of named pytrees, so that a reader can take the parameters alone.
    """

    def __init__(self, folder: Path, *, keep: int | None = None):
        self._folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=keep is not None)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """The newest checkpoint's number, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, trees: dict[str, Any]) -> None:
        """Starts to save; the trees may be donated as soon as this returns."""
        args = ocp.args.Composite(**{name: ocp.args.StandardSave(tree) for name, tree in trees.items()})
        if not self._manager.save(step, args=args):
            raise BertjaxError(f"checkpoint {self._folder / str(step)} is there already and is left as it is")

    def restore(self, step: int, templates: dict[str, Any]) -> dict[str, Any]:
        """Trees like the templates, whose leaves are `jax.ShapeDtypeStruct`s with their shardings.

        Raises:
          BertjaxError: this checkpoint cannot be read as such trees.
        """
        args = ocp.args.Composite(**{name: ocp.args.StandardRestore(tree) for name, tree in templates.items()})
        reason = ""
        with _quiet_orphans():
            try:
                restored = self._manager.restore(step, args=args)
            except Exception as error:  # Orbax raises bare exceptions of many kinds
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        if reason:
            raise BertjaxError(f"checkpoint {self._folder / str(step)} is damaged or of another model ({reason})")
        return {name: restored[name] for name in templates}


@contextlib.contextmanager
def _quiet_orphans() -> Iterator[None]:
    """A read of Orbax's that fails leaves coroutines behind, each of which would print a page when it is collected."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        gc.collect()
        sys.unraisablehook = hook
