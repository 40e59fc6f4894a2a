"""Corpora of the user's files, built on all cores, in shards: a build that is killed goes on where it stopped."""

import contextlib
import functools
import heapq
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from tqdm import tqdm

from bertjax.config import Split
from bertjax.data.corpus.corpus import Corpus, folder_of, join, read
from bertjax.data.corpus.shard_worker import Done, Task, build_shard
from bertjax.data.sources.files import HELD_OUT, SHARD_BYTES, Shard, Skipped, UserFiles, fingerprint, shards, told
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError, warn
from bertjax.storage.cache import alone_in, cache_key, read_or_build, read_whole, writing_in
from bertjax.storage.cores import num_cores
from bertjax.storage.interpreter import module_command

logger = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What the corpora of the same files are joined from: shards, each tokenised into a folder of its own.

    Which these are and what is in them depends on the files alone: whoever makes one, and when, it is the same.
    """

    files: UserFiles
    task: Task
    places: dict[Split, Path]  # of the corpora
    folder: Path

    def plan(self) -> dict[Path, Shard]:
        """Returns the folder of each shard, and what it is of, in their order."""
        # One below another: on a file system without locks what others build beside it could be taken for a leftover.
        cut = shards(self.files.files, self.files.layout, SHARD_BYTES)
        return {self.folder / f"{number:06}" / "whole": shard for number, shard in enumerate(cut)}

    def missing(self, split: Split) -> list[str]:
        """Returns the numbers of the shards that a split is yet to be joined from and nobody has made."""
        return [] if self.places[split].exists() else [path.parent.name for path in self.plan() if not path.exists()]

    def check_unchanged(self) -> None:
        """Raises BertjaxError where the files are others than before, and removes what was made of them."""
        if fingerprint(self.files.files, self.files.layout) != self.files.fingerprint:
            shutil.rmtree(self.folder, ignore_errors=True)
            newest = max(self.files.files, key=lambda file: file.stat().st_mtime_ns)
            raise BertjaxError(f"files changed while they were read, {newest} last; start again when they are done")


def parts_of(cache: Path, files: UserFiles, split: Split, tokenizer: Tokenizer) -> Parts:
    """Returns what the corpus of a split is joined from; splits that are told apart by their text share it.

    A shard that is tokenised stays in a folder whose name ends in .shards, until all of them are joined.
    """
    places = {one: folder_of(cache, f"files/{one}", files.key(one), tokenizer) for one in files.splits(split)}
    task = Task(files.layout, None if files.divided else split, tokenizer)
    key = cache_key(SHARD_BYTES, files.fingerprint, files.divided or split, tokenizer.to_json())
    return Parts(files, task, places, cache / "corpora" / f"files-{key}.shards")


def load_or_build_files(
    cache: Path, files: UserFiles, split: Split, tokenizer: Tokenizer, *, workers: int | None
) -> Corpus:
    """Opens the corpus of a split of the user's files in the cache folder, where it is built first if need be.

    Splits that are told apart by their text are made in one pass.

    Args:
      cache: the cache folder.
      workers: processes that tokenise; by default one a core.

    Raises:
      BertjaxError: a file cannot be read, or the cache not be written; or the split is empty.
    """
    parts = parts_of(cache, files, split, tokenizer)
    place = parts.places[split]
    if (corpus := read_whole(place, read)) is not None:
        return corpus
    with writing_in(cache), alone_in(parts.folder) as folder:
        if read_whole(place, read) is None:  # else another made it while we waited
            _join(parts, _build_shards(plan := parts.plan(), parts.task, _here(workers)), list(plan))
        shutil.rmtree(folder, ignore_errors=True)
    if (corpus := read_whole(place, read)) is None:
        raise BertjaxError(
            f"no document of data.path, cut as data.document={files.layout.document} says, falls to the split {split}"
            + (f": valid and test get {HELD_OUT:.0%} each; give held-out files as data.eval_path" * files.divided)
        )
    return corpus


def build_share(
    parts: Parts, split: Split, index: int, of: int, *, workers: int | None = None, each: "Each | None" = None
) -> list[Done]:
    """Makes one share of the shards and joins nothing: what one process of several, on any machines, has to do.

    Args:
      split: whose corpus they are for; where that is there, nothing is done.
      index, of: which share, from 0 on, and how many there are. They are even in bytes, as far as files can be cut.
      workers: as for `load_or_build_files`.
      each: builds them, in place of processes of this machine.

    Returns:
      a report on each shard of the share.

    Raises:
      BertjaxError: a file cannot be read, or the cache not be written.
    """
    if parts.places[split].exists():
        return []
    plan = list(parts.plan().items())
    share = dict(plan[number] for number in share_of([_size(shard) for _, shard in plan], index, of))
    all_done = _build_shards(share, parts.task, each or _here(workers))
    parts.check_unchanged()
    if parts.places[split].exists():  # others have joined them meanwhile
        shutil.rmtree(parts.folder, ignore_errors=True)
    return all_done


def share_of(sizes: Sequence[int], index: int, of: int) -> list[int]:
    """Returns the numbers of one share: the largest first, each goes to whoever has the least."""
    loads = [(0, taker) for taker in range(of)]  # a heap
    own = []
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        load, taker = loads[0]
        heapq.heapreplace(loads, (load + max(1, sizes[number]), taker))
        own += [number] * (taker == index)
    return sorted(own)


def _join(parts: Parts, all_done: list[Done], folders: list[Path]) -> None:
    parts.check_unchanged()
    skipped = Counter[str]()
    for done in all_done:
        skipped.update(done.skipped)
    for one, place in parts.places.items():
        if any((folder / f"{one}.ids").exists() for folder in folders):
            made_of = functools.partial(join, shards=folders, tokenizer=parts.task.tokenizer, skipped=skipped)
            read_or_build(place, read, functools.partial(made_of, name=f"files/{one}", split=one))


def _size(shard: Shard) -> int:
    return sum(part.size for part in shard)


Each = Callable[[Mapping[Path, Shard], Task], Generator[tuple[Path, Done]]]
"""Builds the shards, each into its folder, and yields each one's report when it is there."""


def _build_shards(plan: Mapping[Path, Shard], task: Task, each: Each) -> list[Done]:
    """Returns the report on each shard, in their order, and tells of them."""
    sizes = {folder: _size(shard) for folder, shard in plan.items()}
    found, shown, new_bytes, began = dict[Path, Done](), 0, 0, time.perf_counter()
    total = sum(sizes.values())
    bar = tqdm(total=total, desc="tokenising", unit="B", unit_scale=True, leave=False, disable=not sys.stderr.isatty())
    with bar, contextlib.closing(each(plan, task)) as all_done:
        for folder, done in all_done:
            bar.update(sizes[folder])
            found[folder] = done
            new_bytes += sizes[folder] * (not done.was_there)
            for message in done.such_as[: Skipped.SHOWN - shown]:
                shown += 1
                warn(message, stacklevel=2)
    if skipped := sum((Counter(done.skipped) for done in found.values()), Counter[str]()):
        warn(f"skipped, in all: {told(skipped)}", stacklevel=2)
    if len(plan) > 1:
        seconds = time.perf_counter() - began
        there = f", after {(total - new_bytes) / 1e6:,.0f} MB before" if new_bytes < total else ""
        rate = f"{new_bytes / 1e6:,.0f} MB of files in {seconds:,.0f} s, {new_bytes / 1e6 / seconds:,.1f} MB/s"
        logger.info("tokenised %s%s", rate, there)
    return [found[folder] for folder in plan]


def _here(workers: int | None) -> Each:
    """Builds them in processes of this machine."""
    return functools.partial(_each_done, workers=workers or num_cores())


def _each_done(plan: Mapping[Path, Shard], task: Task, workers: int) -> Generator[tuple[Path, Done]]:
    if (workers := min(workers, len(plan))) < 2 or not sys.executable:
        for folder, shard in plan.items():
            yield folder, build_shard(folder, shard, task)
        return
    idle: SimpleQueue[_Worker] = SimpleQueue()

    def build(folder: Path) -> tuple[Path, Done]:
        worker = idle.get()
        try:
            return folder, worker.build(folder, plan[folder])
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(workers) as threads, contextlib.ExitStack() as stack:
        for _ in range(workers):
            idle.put(stack.enter_context(contextlib.closing(_Worker(task))))
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        for future in as_completed([threads.submit(build, folder) for folder in plan]):
            yield future.result()


class _Worker:
    """A process that tokenises one shard after the other, on one core.

    It is a new one, not a fork: a program that uses jax has threads. It ends with this process, however that ends.
    """

    def __init__(self, task: Task):
        self._process = subprocess.Popen(
            module_command("bertjax.data.corpus.shard_worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
            process_group=0,  # Ctrl-C is for us alone
        )
        self._say(task.to_json())

    def build(self, folder: Path, shard: Shard) -> Done:
        self._say(json.dumps([os.fspath(folder), shard]))
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            code = self._process.wait()
            raise BertjaxError(
                f"a process that tokenised {shard[0].file} ended with code {code}, perhaps for want of memory; start "
                "again, with fewer data.workers: what is done stays"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise BertjaxError(answer["error"])
        return Done(**answer)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not sent to one that is gone
                pipe.close()  # type: ignore[union-attr]

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone, and is asked for its code when it does not answer
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
