"""Corpora of the user's files, built on all cores, in shards: a build that is killed goes on where it stopped."""

import contextlib
import functools
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

from tqdm import tqdm

from bertjax.config import Split
from bertjax.data.corpus.corpus import Corpus, folder_of, join, read
from bertjax.data.corpus.shard_worker import Done, Task, build_shard
from bertjax.data.sources.files import HELD_OUT, SHARD_BYTES, Shard, Skipped, UserFiles, fingerprint, shards, told
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError, warn
from bertjax.storage.cache import alone_in, cache_key, read_or_build, read_whole, writing_in
from bertjax.storage.interpreter import module_command

logger = logging.getLogger(__name__)


def load_or_build_files(
    cache: Path, files: UserFiles, split: Split, tokenizer: Tokenizer, *, workers: int | None
) -> Corpus:
    """Opens the corpus of a split of the user's files in the cache folder, where it is built first if need be.

    Splits that are told apart by their text are made in one pass. A shard that is tokenised stays in a folder whose
    name ends in .shards, until all of them are joined.

    Args:
      cache: the cache folder.
      workers: processes that tokenise; by default one a core.

    Raises:
      BertjaxError: a file cannot be read, or the cache not be written; or the split is empty.
    """
    places = {one: folder_of(cache, f"files/{one}", files.key(one), tokenizer) for one in files.splits(split)}
    if (corpus := read_whole(places[split], read)) is not None:
        return corpus
    key = cache_key(SHARD_BYTES, files.fingerprint, files.divided or split, tokenizer.to_json())
    with writing_in(cache), alone_in(cache / "corpora" / f"files-{key}.shards") as folder:
        if read_whole(places[split], read) is None:  # else another made it while we waited
            task = Task(files.layout, None if files.divided else split, tokenizer)
            there, skipped = _build_shards(
                folder, shards(files.files, files.layout, SHARD_BYTES), task, workers or _cores()
            )
            if fingerprint(files.files, files.layout) != files.fingerprint:
                shutil.rmtree(folder, ignore_errors=True)
                newest = max(files.files, key=lambda file: file.stat().st_mtime_ns)
                raise BertjaxError(f"files changed while they were read, {newest} last; start again when they are done")
            for one, place in places.items():
                if any((shard / f"{one}.ids").exists() for shard in there):
                    made_of = functools.partial(join, shards=there, tokenizer=tokenizer, skipped=skipped)
                    read_or_build(place, read, functools.partial(made_of, name=f"files/{one}", split=one))
        shutil.rmtree(folder, ignore_errors=True)
    if (corpus := read_whole(places[split], read)) is None:
        raise BertjaxError(
            f"no document of data.path, cut as data.document={files.layout.document} says, falls to the split {split}"
            + (f": valid and test get {HELD_OUT:.0%} each; give held-out files as data.eval_path" * files.divided)
        )
    return corpus


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _build_shards(folder: Path, plan: list[Shard], task: Task, workers: int) -> tuple[list[Path], Counter[str]]:
    """Returns the folders of all shards, in their order, and how much could not be read for which reason."""
    folders = [folder / f"{number:06}" for number in range(len(plan))]
    sizes = [sum(part.size for part in shard) for shard in plan]
    skipped, shown, new_bytes, began = Counter[str](), 0, 0, time.perf_counter()
    bar = tqdm(
        total=sum(sizes), desc="tokenising", unit="B", unit_scale=True, leave=False, disable=not sys.stderr.isatty()
    )
    with bar, contextlib.closing(_each_done(folders, plan, task, min(workers, len(plan)))) as all_done:
        for number, done in all_done:
            bar.update(sizes[number])
            new_bytes += sizes[number] * (not done.was_there)
            skipped.update(done.skipped)
            for message in done.such_as[: Skipped.SHOWN - shown]:
                shown += 1
                warn(message, stacklevel=2)
    if skipped:
        warn(f"skipped, in all: {told(skipped)}", stacklevel=2)
    if len(plan) > 1:
        seconds = time.perf_counter() - began
        there = f", after {(sum(sizes) - new_bytes) / 1e6:,.0f} MB before" if new_bytes < sum(sizes) else ""
        rate = f"{new_bytes / 1e6:,.0f} MB of files in {seconds:,.0f} s, {new_bytes / 1e6 / seconds:,.1f} MB/s"
        logger.info("tokenised %s%s", rate, there)
    return folders, skipped


def _each_done(folders: list[Path], plan: list[Shard], task: Task, workers: int) -> Generator[tuple[int, Done]]:
    """Builds the shards, and yields each one's number when it is there."""
    if workers < 2 or not sys.executable:
        for number, (folder, shard) in enumerate(zip(folders, plan, strict=True)):
            yield number, build_shard(folder, shard, task)
        return
    idle: SimpleQueue[_Worker] = SimpleQueue()

    def build(number: int) -> tuple[int, Done]:
        worker = idle.get()
        try:
            return number, worker.build(folders[number], plan[number])
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(workers) as threads, contextlib.ExitStack() as stack:
        for _ in range(workers):
            idle.put(stack.enter_context(contextlib.closing(_Worker(task))))
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        for future in as_completed([threads.submit(build, number) for number in range(len(plan))]):
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
