"""Checkpoints of a run, read: trusted only after a look at every byte.

In the folder, `25` is the checkpoint of step 25. `partial-25-1` is being written or removed, or was when its process
died: it is never read, and the next run removes it. `damaged-25` was found damaged and set aside; it is nobody's but
the user's from then on. `checkpoint_writer` makes them.
"""

import contextlib
import gc
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import jax

from bertjax.errors import BertjaxError, warn
from bertjax.storage.manifest import damage

OF_TRAINING = "opt_state"  # the tree that only who goes on training needs: twice the parameters, for Adam


class Checkpoints:
    """The numbered checkpoints of a folder; nothing in it is touched. Use as a context manager.

    A checkpoint is a dict of named pytrees, so that a reader can take the parameters alone, and need not have the rest.
    """

    _unread: tuple[str, ...] = (OF_TRAINING,)

    def __init__(self, folder: Path):
        self._folder = folder.absolute()
        self._vouched_for: int | None = None  # found sound and not read yet
        self._quiet = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._quiet.enter_context(_quiet_orbax())
        return self

    def __exit__(self, in_flight: object, *_: object) -> None:
        self._quiet.close()

    def steps(self) -> list[int]:
        """Returns the numbers of the checkpoints there are, sound or not, in order."""
        try:
            names = os.listdir(self._folder) if self._folder.is_dir() else []
        except OSError as error:
            raise BertjaxError(f"cannot read {self._folder}: {error.strerror}; ask its owner for permission") from error
        return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]{0,17}", name))

    def latest_step(self) -> int | None:
        """Returns the newest sound checkpoint's number, None where there are no checkpoints.

        Damaged ones that are newer are named in warnings.

        Raises:
          BertjaxError: there are checkpoints and none is sound. They all stay where they are.
        """
        return self.first_sound(reversed)

    def first_sound(self, order: Callable[[list[int]], Iterable[int]]) -> int | None:
        """Returns the first sound checkpoint's number, None where there are no checkpoints.

        Damaged ones that go before it are named in warnings.

        Args:
          order: puts those to choose from, of the numbers given, in order.

        Raises:
          BertjaxError: there are checkpoints and none is sound. They all stay where they are.
        """
        found: dict[int, str] = {}
        for step in order(self.steps()):
            reason = damage(self._folder / str(step), step, without=self._unread)
            if reason is None:
                self._vouched_for = step
                for other, reason in found.items():
                    aside = self._set_aside(other)
                    path = self._folder / str(other)
                    message = f"checkpoint {path} is damaged ({reason}){aside}; {step} is used instead"
                    warn(message, stacklevel=2)
                return step
            if not os.path.lexists(self._folder / str(step)):  # the run goes on, and has just removed its oldest
                return self.first_sound(order)
            found[step] = reason
        if found:
            newest, reason = next(iter(found.items()))
            which = f"all {len(found)} of them are" if len(found) > 1 else "it is the only one"
            raise BertjaxError(f"checkpoint {self._folder / str(newest)} is damaged ({reason}) and {which}; train anew")
        return None

    def newest_step(self) -> int:
        """Returns the newest sound checkpoint's number. Raises BertjaxError where the run has no checkpoint."""
        step = self.latest_step()
        if step is None:
            run = self._folder.parent
            raise BertjaxError(f"{run} has no checkpoint: the run ended before its first; go on with it by --resume")
        return step

    def _set_aside(self, step: int) -> str:
        """Does with a damaged checkpoint what is to be done, and says it in words: here it stays where it is."""
        return ""

    def restore(self, step: int, templates: dict[str, Any], *, partial: bool = False) -> dict[str, Any]:
        """Returns trees like the templates, whose leaves are `jax.ShapeDtypeStruct`s with their shardings.

        Args:
          partial: whether the checkpoint's trees may have more in them.

        Raises:
          BertjaxError: this checkpoint is damaged, or does not hold such trees.
        """
        path = self._folder / str(step)
        vouched_for, self._vouched_for = self._vouched_for, None
        if step != vouched_for and (found := damage(path, step, without=self._unread)):
            raise BertjaxError(f"checkpoint {path} is damaged ({found}); give another")
        import orbax.checkpoint as ocp

        args = {}
        for name, template in templates.items():
            # Told no dtype and no shape: Orbax would cast to the one, some day pad to the other, and say nothing.
            places = jax.tree.map(lambda leaf: ocp.ArrayRestoreArgs(sharding=leaf.sharding), template)
            args[name] = ocp.args.PyTreeRestore(
                jax.tree.map(lambda _: 0, template), restore_args=places, partial_restore=partial
            )
        reason = ""
        with contextlib.ExitStack() as failed, ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as orbax:
            try:
                restored = orbax.restore(path, args=ocp.args.Composite(**args))
                reason = _misfit({name: restored[name] for name in templates}, templates)
            except Exception as error:
                failed.enter_context(quiet_orphans())  # which takes time, and there are none else
                reason = reason_of(error)
        if reason and not os.path.lexists(path):
            raise BertjaxError(f"checkpoint {path} was removed while it was read, by the run that goes on; try again")
        if reason:
            raise BertjaxError(f"checkpoint {path} is not of this model ({reason}); use the run's own configuration")
        return {name: restored[name] for name in templates}


def _misfit(trees: dict[str, Any], templates: dict[str, Any]) -> str:
    """The first leaf that is not as its template has it, if there is one."""
    for (path, leaf), template in zip(
        jax.tree_util.tree_leaves_with_path(trees), jax.tree.leaves(templates), strict=True
    ):
        if (leaf.shape, leaf.dtype) != (template.shape, template.dtype):
            ours, theirs = (f"{x.dtype}{list(x.shape)}" for x in (template, leaf))
            return f"{jax.tree_util.keystr(path, simple=True, separator='/')} is {theirs} and should be {ours}"
    return ""


def reason_of(error: Exception) -> str:
    """Returns one line on what Orbax or the system said; of a full disk and the like, only that."""
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


@contextlib.contextmanager
def quiet_orphans() -> Iterator[None]:
    """Silences the coroutines that a failure in Orbax leaves behind: each would print a page when it is collected."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        gc.collect()
        sys.unraisablehook = hook
