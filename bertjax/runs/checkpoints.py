"""Checkpoints on Orbax: saved in the background, each whole or not there at all, and trusted only after a look.

In the folder, `25` is the checkpoint of step 25. `partial-25-1` is being written or removed, or was when its process
died: it is never read, and the next run removes it. `damaged-25` was found damaged and set aside; it is nobody's but
the user's from then on, and does not count among those that `keep` keeps.
"""

import concurrent.futures
import contextlib
import functools
import gc
import itertools
import logging
import os
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from bertjax.config import OnFailure
from bertjax.errors import BertjaxError
from bertjax.storage.atomic import sync_folder
from bertjax.storage.manifest import damage, write_manifest


class Checkpoints:
    """The numbered checkpoints of a folder. Use as a context manager: leaving it waits for the last save.

    A checkpoint is a dict of named pytrees, so that a reader can take the parameters alone.

    Args:
      keep: as many of the newest stay; without it the folder is only read, and nothing in it is touched.
      on_failure: a save that failed is a BertjaxError, or a warning unless it is the last one. A save in the background
        fails when the next is begun, or on leaving.
    """

    def __init__(self, folder: Path, *, keep: int | None = None, on_failure: OnFailure = "stop"):
        self._folder = folder.absolute()
        self._keep, self._on_failure = keep, on_failure
        self._orbax = _new_orbax()
        self._background = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: tuple[int, concurrent.futures.Future[None]] | None = None
        self._failure: BertjaxError | None = None  # of the newest save
        self._vouched_for: int | None = None  # found sound and not read yet
        self._tries = itertools.count(1)
        self._quiet = contextlib.ExitStack()

    def __enter__(self) -> "Checkpoints":
        self._quiet.enter_context(_quiet_orbax())
        if self._keep is not None:
            _quiet_stragglers()
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
            self._quiet.close()
            if self._keep is not None:
                self._remove("partial-*")
        if self._failure and in_flight:  # an error on its way tells more
            warnings.warn(str(self._failure), stacklevel=2)
        elif self._failure:
            raise self._failure

    def steps(self) -> list[int]:
        """The numbers of the checkpoints there are, sound or not."""
        try:
            names = os.listdir(self._folder) if self._folder.is_dir() else []
        except OSError as error:
            raise BertjaxError(f"cannot read {self._folder}: {error.strerror}; ask its owner for permission") from error
        return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]{0,17}", name))

    def latest_step(self) -> int | None:
        """The newest sound checkpoint's number, None where there are none.

        Damaged ones that are newer are named in warnings and, where the folder is not only read, set aside.

        Raises:
          BertjaxError: there are checkpoints and none is sound. They all stay where they are.
        """
        self._finish()
        found: dict[int, str] = {}
        for step in reversed(self.steps()):
            reason = damage(self._folder / str(step), step)
            if reason is None:
                self._vouched_for = step
                for other, reason in found.items():
                    self._pass_over(other, reason, instead=step)
                return step
            if not os.path.lexists(self._folder / str(step)):  # the run goes on, and has just removed its oldest
                return self.latest_step()
            found[step] = reason
        if found:
            newest, reason = next(iter(found.items()))
            which = f"all {len(found)} of them are" if len(found) > 1 else "it is the only one"
            raise BertjaxError(f"checkpoint {self._folder / str(newest)} is damaged ({reason}) and {which}; train anew")
        return None

    def _pass_over(self, step: int, reason: str, *, instead: int) -> None:
        path = self._folder / str(step)
        aside = ""
        if self._keep is not None and jax.process_index() == 0:
            names = [f"damaged-{step}", *(f"damaged-{step}-{number}" for number in range(2, 1000))]
            name = next(name for name in names if not os.path.lexists(self._folder / name))
            try:
                path.rename(self._folder / name)
            except OSError as error:
                raise BertjaxError(f"cannot set damaged checkpoint {path} aside: {error.strerror}") from error
            aside = f" and set aside as {name}"
        warnings.warn(f"checkpoint {path} is damaged ({reason}){aside}; {instead} is used instead", stacklevel=3)

    def save(self, step: int, trees: dict[str, Any]) -> None:
        """Starts to save; the trees may be donated as soon as this returns.

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
            self._saving = step, self._background.submit(self._publish, step, partial)

    def _publish(self, step: int, partial: Path) -> None:
        """Makes what Orbax writes a checkpoint, once it is written."""
        self._orbax.wait_until_finished()
        if jax.process_index() == 0:
            write_manifest(partial, step)
            partial.rename(self._folder / str(step))
            sync_folder(self._folder)
            for old in self.steps()[: -(self._keep or 1)]:
                with contextlib.suppress(OSError):  # it is tried again after the next save
                    # Under another name first: a reader must not take what is half removed for damaged.
                    shutil.rmtree((self._folder / str(old)).rename(self._folder / f"partial-{old}-0"))

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
        with _quiet_orphans():
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
        self._failure = BertjaxError(
            f"cannot save checkpoint {self._folder / str(step)} ({_reason(error)}) and {newest}; "
            "make room or see to the folder"
        )
        if self._on_failure == "stop":
            failure, self._failure = self._failure, None  # raised once
            raise failure from error
        warnings.warn(f"{self._failure}; the run goes on until the next is due", stacklevel=3)

    def _remove(self, pattern: str) -> None:
        """Removes what is no checkpoint. What stays or comes back is removed when the folder is next opened."""
        if jax.process_index() == 0:
            for path in self._folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, step: int, templates: dict[str, Any]) -> dict[str, Any]:
        """Trees like the templates, whose leaves are `jax.ShapeDtypeStruct`s with their shardings.

        Raises:
          BertjaxError: this checkpoint is damaged, or does not hold such trees.
        """
        self._finish()
        path = self._folder / str(step)
        vouched_for, self._vouched_for = self._vouched_for, None
        if step != vouched_for and (found := damage(path, step)):
            raise BertjaxError(f"checkpoint {path} is damaged ({found}); give another")
        args = {}
        for name, template in templates.items():
            # Told no dtype and no shape: Orbax would cast to the one, some day pad to the other, and say nothing.
            places = jax.tree.map(lambda leaf: ocp.ArrayRestoreArgs(sharding=leaf.sharding), template)
            args[name] = ocp.args.PyTreeRestore(jax.tree.map(lambda _: 0, template), restore_args=places)
        reason = ""
        with _quiet_orphans():
            try:
                restored = self._orbax.restore(path, args=ocp.args.Composite(**args))
                reason = _misfit({name: restored[name] for name in templates}, templates)
            except Exception as error:
                reason = _reason(error)
        if reason and not os.path.lexists(path):
            raise BertjaxError(f"checkpoint {path} was removed while it was read, by the run that goes on; try again")
        if reason:
            raise BertjaxError(f"checkpoint {path} is not of this model ({reason}); use the run's own configuration")
        return {name: restored[name] for name in templates}


def _new_orbax() -> ocp.AsyncCheckpointer:
    return ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())


def _misfit(trees: dict[str, Any], templates: dict[str, Any]) -> str:
    """The first leaf that is not as its template has it, if there is one."""
    for (path, leaf), template in zip(
        jax.tree_util.tree_leaves_with_path(trees), jax.tree.leaves(templates), strict=True
    ):
        if (leaf.shape, leaf.dtype) != (template.shape, template.dtype):
            ours, theirs = (f"{x.dtype}{list(x.shape)}" for x in (template, leaf))
            return f"{jax.tree_util.keystr(path, simple=True, separator='/')} is {theirs} and should be {ours}"
    return ""


def _reason(error: Exception) -> str:
    """One line on what Orbax or the system said. Of a full disk and the like, only that."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if number := re.search(r"os_error_code='(\d+)'", str(error)):  # which tensorstore puts at the end of a long line
        return os.strerror(int(number[1]))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Orbax, and asyncio for it, log what they raise too, traceback and all; what there is to know we say ourselves."""
    logs = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


@functools.cache
def _quiet_stragglers() -> None:
    """When one of several writes fails Orbax leaves the others, which end whenever they end, find its event loop closed
    and would print a page each. So this is for the rest of the process.
    """
    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: None if str(what.exc_value) == "Event loop is closed" else hook(what)


@contextlib.contextmanager
def _quiet_orphans() -> Iterator[None]:
    """What fails in Orbax leaves coroutines behind, each of which would print a page when it is collected."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        gc.collect()
        sys.unraisablehook = hook
