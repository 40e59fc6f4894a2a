"""Shards of the user's files, built by a cluster of Ray: it maps over them, and does nothing else."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from bertjax.data.corpus.shard_worker import Done, Task, answered
from bertjax.data.sources.files import Shard
from bertjax.errors import BertjaxError

_RETRIES = 3  # of a shard whose process or machine is lost


def each_done(plan: Mapping[Path, Shard], task: Task) -> Generator[tuple[Path, Done]]:
    """Builds the shards, each as a task of Ray, and yields each one's report when it is there.

    All machines of the cluster need the files and the cache folder under the same names, and this bertjax.

    Raises:
      BertjaxError: Ray is not installed, or a shard cannot be built.
    """
    try:
        import ray
    except ImportError:
        raise BertjaxError("--engine ray needs ray, which is not installed: pip install 'bertjax[ray]'") from None
    with _connected(ray):
        build = ray.remote(max_retries=_RETRIES)(_build)
        of_all = ray.put(task.to_json())  # once, for it holds the vocabulary
        waiting = {build.remote(of_all, *_whole_names(folder, shard)): folder for folder, shard in plan.items()}
        try:
            while waiting:
                [done], _ = ray.wait(list(waiting), num_returns=1)
                folder = waiting.pop(done)
                answer = ray.get(done)
                if "error" in answer:
                    raise BertjaxError(answer["error"])
                yield folder, Done(**answer)
        except ray.exceptions.RayError as error:
            raise BertjaxError(f"Ray: {error}; start again with the same command: what is done stays") from error
        finally:
            for other in waiting:
                ray.cancel(other)


def _build(task: str, folder: str, shard: str) -> dict[str, Any]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a task has one core
    return answered(folder, json.loads(shard), Task.of_json(task))


def _whole_names(folder: Path, shard: Shard) -> tuple[str, str]:
    """Returns a folder and a shard as another process takes them, which works in a folder of its own."""
    parts = [part._replace(file=os.path.abspath(part.file)) for part in shard]
    return os.path.abspath(folder), json.dumps(parts)


@contextlib.contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Connects with the cluster that RAY_ADDRESS names, or that runs here; else one of this machine is started."""
    if ray.is_initialized():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False)
    if threading.current_thread() is threading.main_thread():  # Ray has its own code for an end by a scheduler
        signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        ray.shutdown()
