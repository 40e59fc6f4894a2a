"""A run at a URL: published as it goes, found whole whatever kills it, and gone on with on another machine."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from faulty_store import FaultyStore, times
from refusals import refusal

from bertjax import load_config, pretrain
from bertjax.config import CheckpointConfig, Config, TaskConfig
from bertjax.evaluation.evaluate import evaluate_run
from bertjax.evaluation.report import report_runs
from bertjax.inference.explore import lines_of_run
from bertjax.parallel.process_group import SingleProcess
from bertjax.runs.checkpoint_writer import CheckpointWriter
from bertjax.runs.folder import RunFolder
from bertjax.runs.remote_run import at_url, run_path
from bertjax.storage import lease
from bertjax.storage.hub_models import model_folder
from bertjax.storage.remote import Remote
from bertjax.storage.snapshots import newest
from bertjax.train.sweep import sweep

URL = "memory://bucket/run"
Store = type[FaultyStore]


class Killed(BaseException):
    """Stands for kill -9 in the middle of an upload."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BEAT", 0.05), ("PATIENCE", 0.3), ("SETTLE", 0.0)):
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture
def there(tiny: Config, store: Store) -> Config:
    """The tiny run, at a URL."""
    return dataclasses.replace(tiny, run_dir=URL, checkpoint=CheckpointConfig(every=2, keep=1))


def take(holder: str) -> None:
    """Makes the lease another's, as one that is alive, or dead, leaves it."""
    content = json.dumps({"holder": holder, "token": "", "number": 1}).encode()
    fsspec.filesystem("memory").pipe_file("/bucket/run/lease.json", content)


def steps(folder: Path) -> list[int]:
    with RunFolder(folder).checkpoints() as checkpoints:
        return checkpoints.steps()


def arrays(folder: Path, step: int) -> dict[str, list[np.ndarray]]:
    """All that a checkpoint holds, as Orbax alone reads it."""
    found = {}
    with ocp.PyTreeCheckpointer() as reader:
        for path in [path for path in (folder / f"checkpoints/{step}").iterdir() if path.is_dir()]:
            tree = reader.metadata(path).item_metadata.tree
            how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            found[path.name] = jax.tree.leaves(reader.restore(path, restore_args=how))
    return found


def test_a_run_that_is_killed_while_it_uploads_goes_on_elsewhere(
    there: Config,
    tiny: Config,
    tmp_path: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = pretrain(dataclasses.replace(there, run_dir=tiny.run_dir))
    manifests: list[str] = []

    def kill(operation: str, path: str) -> None:
        manifests.extend([path] * ((operation, path) == ("write", "/bucket/run/manifest.json")))
        if manifests and operation == "write" and "/objects/" in path:
            raise Killed

    store.faults.append(kill)  # after the first checkpoint, when a part of the second is there
    with pytest.raises(Killed):
        pretrain(there)
    store.faults.clear()
    take("process 1 on another")  # which is dead
    assert refusal(pretrain, there).startswith(f"{URL} exists and is left as it is; go on with that run by --resume")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert steps(model_folder(URL)) == [2]
    store.hidden.update(store.store)  # a listing that lags is not needed
    there = dataclasses.replace(there, data=dataclasses.replace(there.data, cache=str(tmp_path / "elsewhere")))
    caplog.set_level("INFO", "bertjax")
    folder = pretrain(there, resume=True)
    assert f'  bertjax encode {URL} "a crane is flying"' in caplog.messages  # there alone it is to be found later
    assert folder == run_path(there) and steps(folder) == [4]
    for read in (folder, model_folder(URL)):
        assert (read / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
        assert {path.name for path in read.iterdir()} >= {path.name for path in whole.iterdir()} - {"lock"}
        found, expected = arrays(read, 4), arrays(whole, 4)
        if read != folder:  # who does not go on training need not fetch the optimiser's
            del expected["opt_state"]
        assert found.keys() == expected.keys() >= {"params"}
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    store.hidden.clear()
    objects = {name for name in Remote(URL).listing() if name.startswith("objects/")}
    snapshot = newest(Remote(URL))
    assert snapshot is not None and {f"objects/{sha}" for sha in snapshot.hashes} <= objects
    assert not [name for name in snapshot.files if name == "lock" or name.startswith("checkpoints/2/")]
    assert not Remote(URL + "/lease.json").exists()
    with at_url(there, SingleProcess(), resume=True):  # what the kill left, which no listing told of
        pass
    there_now = {"manifest.json", "config.yaml", *(f"objects/{sha}" for sha in snapshot.hashes)}
    assert Remote(URL).listing().keys() == there_now
    assert load_config(f"{URL}/config.yaml") == RunFolder(folder).config()
    of_url, of_path = (evaluate_run(run, mesh=there.mesh) for run in (URL, whole))
    assert of_url == of_path
    assert lines_of_run(model_folder(URL)) == lines_of_run(whole)
    assert f"{URL} is a URL" in refusal(report_runs, [URL])
    assert Remote(URL).listing().keys() == there_now  # which reading does not change


@contextlib.contextmanager
def writer(path: Path, publish: Callable[[], None]) -> Iterator[CheckpointWriter]:
    """Writes checkpoints as a run does that goes on when it cannot."""
    with CheckpointWriter(path / "checkpoints", keep=1, on_failure="continue", publish=publish) as checkpoints:
        yield checkpoints


def save(path: Path, step: int, publish: Callable[[], None]) -> None:
    with writer(path, publish) as checkpoints:
        checkpoints.save(step, {"params": {"w": np.full(3, step)}})


@pytest.fixture
def folder(there: Config) -> Path:
    """Its folder here, in which a run has begun."""
    path = run_path(there)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("seed: 1\n")
    return path


def test_old_checkpoints_go_from_the_store(there: Config, folder: Path) -> None:
    with at_url(there, SingleProcess(), resume=True) as publish:
        for step in (1, 2):
            save(folder, step, publish)
            snapshot = newest(Remote(URL))
            assert snapshot is not None
            assert {name.split("/")[1] for name in snapshot.files if name.startswith("checkpoints/")} == {str(step)}
            objects = {name for name in Remote(URL).listing() if name.startswith("objects/")}
            assert objects == {f"objects/{sha}" for sha in snapshot.hashes}


def test_a_run_whose_lease_is_lost_stops_and_publishes_nothing(there: Config, folder: Path, store: Store) -> None:
    """Even one that goes on when it cannot save."""

    def lose() -> None:
        with at_url(there, SingleProcess(), resume=True) as publish:
            save(folder, 1, publish)
            take("process 2 on another")
            store.done.clear()
            save(folder, 2, publish)

    assert f"{URL} was taken over by process 2 on another, and nothing more is written there" in refusal(lose)
    assert not [path for what, path in store.done if what in ("write", "remove")]
    fetched = model_folder(URL)
    assert steps(fetched) == [1]
    assert "process 2 on another" in Remote(URL).read("lease.json").decode()  # it is not given back


def test_what_cannot_be_published_is_at_the_next_time(there: Config, folder: Path, store: Store) -> None:
    store.faults.append(times(999, OSError("503 Slow Down"), "write", "/objects/"))
    said = "is not published: cannot write memory://bucket/run/objects/.* 503 Slow Down.*--resume"
    with at_url(there, SingleProcess(), resume=True) as publish, writer(folder, publish) as checkpoints:
        checkpoints.save(1, {"params": {"w": np.ones(3)}})
        with pytest.warns(UserWarning, match=said):
            checkpoints.first_sound(list)  # which waits
        assert newest(Remote(URL)) is None
        store.faults.clear()
        checkpoints.save(2, {"params": {"w": np.ones(3)}})
    assert steps(model_folder(URL)) == [2]


def test_processes_that_do_not_share_the_folder_are_told(there: Config) -> None:
    other = SingleProcess()
    other.index, other.first = 1, False
    context = at_url(there, other, resume=False)
    assert "process 1 does not find " in (said := refusal(context.__enter__)) and "give a data.cache" in said
    run_path(there).parent.mkdir(parents=True)
    with at_url(there, other, resume=False) as publish:
        publish()
    assert not Remote(URL).exists()


def test_what_will_not_do_is_refused_before_any_work(
    there: Config, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertjax.train.run._train", None)
    assert "can be read alone" in refusal(pretrain, dataclasses.replace(there, run_dir="https://a.org/run"))
    several = dataclasses.replace(there, task=TaskConfig(kind="classify"), init_from="absent")
    assert f"run_dir={URL} is a URL" in refusal(sweep, several, seeds=2)
    fsspec.filesystem("memory").pipe_file("/bucket/run/objects/mine.txt", b"")
    for resume in (False, True):
        assert "holds objects/mine.txt, is no run to --resume" in refusal(pretrain, there, resume=resume)
    assert list(store.store) == ["/bucket/run/objects/mine.txt"]
