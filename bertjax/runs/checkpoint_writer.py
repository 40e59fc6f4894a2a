"""Checkpoints of a run, written with Orbax: in the background, each whole or not there at all."""

import concurrent.futures
import contextlib
import functools
import itertools
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from bertjax.config import OnFailure
from bertjax.errors import BertjaxError, warn
from bertjax.runs.checkpoints import Checkpoints, quiet_orphans, reason_of
from bertjax.storage.atomic import sync_folder
from bertjax.storage.lease import Lost
from bertjax.storage.manifest import write_manifest

# Writes that a straggler (see below) was to begin, and which its closed event loop never began.
ORPHANS = "coroutine '.*async_serialize_from_host.* was never awaited"


class CheckpointWriter(Checkpoints):
    """Writes the checkpoints of a folder, and reads them. Leaving it as a context manager waits for the last save.

    Args:
      keep: as many of the newest stay, and the best; damaged ones, which are set aside, do not count among them.
      on_failure: a save that failed is a BertjaxError, or a warning unless it is the last one. A save in the background
        fails when the next is begun, or on leaving.
      publish: is called after each save, in the background too; a BertjaxError of it is one of the save. Where that is
        Lost, `on_failure` does not count.
    """

    _unread = ()

    def __init__(
        self, folder: Path, *, keep: int, on_failure: OnFailure = "stop", publish: Callable[[], None] = lambda: None
    ):
        super().__init__(folder)
        self._keep, self._on_failure, self._also = keep, on_failure, publish
        self._orbax = _new_orbax()
        self._background = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: tuple[int, concurrent.futures.Future[None]] | None = None
        self._failure: BertjaxError | None = None  # of the newest save
        self._tries = itertools.count(1)

    def __enter__(self) -> Self:
        super().__enter__()
        _quiet_stragglers()
        warnings.filterwarnings("ignore", ORPHANS, RuntimeWarning)
        self._remove("partial-*")
        return self

    def __exit__(self, in_flight: object, *_: object) -> None:
        try:
            self._finish()
        except BertjaxError as failure:
            self._failure = failure
        finally:
            self._background.shutdown()
            self._orbax.close()
            super().__exit__(in_flight)
            self._remove("partial-*")
        if self._failure and in_flight:  # an error on its way tells more
            warn(str(self._failure), stacklevel=2)
        elif self._failure:
            raise self._failure

    def first_sound(self, order: Callable[[list[int]], Iterable[int]]) -> int | None:
        """Returns what `Checkpoints` does, with the last save finished; damaged checkpoints are set aside."""
        self._finish()
        return super().first_sound(order)

    def restore(self, step: int, templates: dict[str, Any], *, partial: bool = False) -> dict[str, Any]:
        """Returns what `Checkpoints` does, with the last save finished."""
        self._finish()
        return super().restore(step, templates, partial=partial)

    def _set_aside(self, step: int) -> str:
        if jax.process_index() != 0:
            return ""
        names = [f"damaged-{step}", *(f"damaged-{step}-{number}" for number in range(2, 1000))]
        name = next(name for name in names if not os.path.lexists(self._folder / name))
        path = self._folder / str(step)
        try:
            path.rename(self._folder / name)
        except OSError as error:
            raise BertjaxError(f"cannot set damaged checkpoint {path} aside: {error.strerror}") from error
        return f" and set aside as {name}"

    def save(self, step: int, trees: dict[str, Any], *, best: Sequence[int] = ()) -> None:
        """Starts to save; the trees may be donated as soon as this returns.

        Args:
          best: steps, the first of which that has a checkpoint stays, whatever its age.

        Raises:
          BertjaxError: there is such a checkpoint, or this save or the one before it failed.
        """
        self._finish()
        if os.path.lexists(self._folder / str(step)):
            raise BertjaxError(f"checkpoint {self._folder / str(step)} is there already and is left as it is")
        # A name of its own for each try: a write left over from one that failed must not end up in this.
        partial = self._folder / f"partial-{step}-{next(self._tries)}"
        args = ocp.args.Composite(**{name: ocp.args.PyTreeSave(tree) for name, tree in trees.items()})
        try:
            self._folder.mkdir(exist_ok=True)  # and not its parents: a run whose folder is gone has lost its text too
            self._orbax.save(partial, args=args)
        except Exception as error:  # Orbax raises bare exceptions of many kinds
            self._fail(step, error)
        else:
            self._saving = step, self._background.submit(self._publish, step, partial, best)

    def _publish(self, step: int, partial: Path, best: Sequence[int]) -> None:
        """Makes what Orbax writes a checkpoint, once it is written."""
        self._orbax.wait_until_finished()
        if jax.process_index() == 0:
            write_manifest(partial, step)
            partial.rename(self._folder / str(step))
            sync_folder(self._folder)
            steps = self.steps()
            stays = [step for step in best if step in steps][:1]
            for old in [old for old in steps[: -self._keep] if old not in stays]:
                with contextlib.suppress(OSError):  # it is tried again after the next save
                    # Under another name first: a reader must not take what is half removed for damaged.
                    shutil.rmtree((self._folder / str(old)).rename(self._folder / f"partial-{old}-0"))
            self._also()

    def _finish(self) -> None:
        """Waits for the save that is under way."""
        if self._saving is None:
            return
        step, done = self._saving
        try:
            done.result()
            self._failure = None
        except Exception as error:
            self._fail(step, error)
        finally:
            self._saving = None if done.done() else self._saving  # not when Ctrl-C ended the wait

    def failed(self, step: int, error: Exception) -> None:
        """Takes a step for one that could not be saved: raises a BertjaxError, or warns and lets the next one try."""
        self._finish()
        self._fail(step, error)

    def _fail(self, step: int, error: Exception) -> None:
        with quiet_orphans():
            # Orbax raises when the first of its threads fails, and the others go on writing.
            for thread in threading.enumerate():
                if type(thread).__module__.startswith("orbax."):
                    threading.Thread.join(thread)  # its own would raise what failed in it
            with contextlib.suppress(Exception):
                self._orbax.close()
            self._orbax = _new_orbax()  # the old one may have more to raise of this, and would in the next save
            self._remove(f"partial-{step}-*")
        steps = self.steps()
        newest = f"checkpoint {steps[-1]} stays the newest" if steps else "there is none yet"
        if isinstance(error, BertjaxError):  # it is saved, and not published
            self._failure = error
        else:
            self._failure = BertjaxError(
                f"cannot save checkpoint {self._folder / str(step)} ({reason_of(error)}) and {newest}; "
                "make room or see to the folder"
            )
            self._failure.__cause__ = error
        if self._on_failure == "stop" or isinstance(error, Lost):
            failure, self._failure = self._failure, None  # raised once
            raise failure
        warn(f"{self._failure}; the run goes on until the next is due", stacklevel=3)

    def _remove(self, pattern: str) -> None:
        """Removes what is no checkpoint. What stays or comes back is removed when the folder is next opened."""
        if jax.process_index() == 0:
            for path in self._folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def _new_orbax() -> ocp.AsyncCheckpointer:
    # Replicas share the writing of what is large; slicing and joining what is small takes longer than to write it. How
    # an array was spread is not written, which took up to a third of a save: who restores says where it is to go.
    arrays = ocp.type_handlers.ArrayHandler(
        min_slice_bytes_for_replica_parallel=2**20, enable_write_sharding_file=False
    )
    numpy = ocp.type_handlers.NumpyHandler()
    leaves = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays), (np.ndarray, numpy))
    trees = ocp.handlers.DefaultCheckpointHandlerRegistry()
    trees.add(None, ocp.args.PyTreeSave, ocp.PyTreeCheckpointHandler(type_handler_registry=leaves))
    return ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(handler_registry=trees))


@functools.cache
def _quiet_stragglers() -> None:
    """When one of several writes fails Orbax leaves the others, which end whenever they end, find its event loop closed
    and would print a page each. So this is for the rest of the process.
    """
    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: None if str(what.exc_value) == "Event loop is closed" else hook(what)
