"""What is saved comes back bit for bit, on other devices too, or is refused."""

import contextlib
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike

from bertjax.errors import BertjaxError
from bertjax.parallel.sharding import make_mesh, replicated, with_sharding
from bertjax.runs.checkpoint_writer import CheckpointWriter
from bertjax.runs.checkpoints import Checkpoints


def tree(seed: int, devices: int = 1) -> dict:
    sharding = replicated(make_mesh(devices=jax.devices()[:devices]))
    rng = np.random.default_rng(seed)
    return jax.device_put(
        {"a": {"kernel": rng.normal(size=(300, 70)).astype(np.float32)}, "b": np.int32(seed)}, sharding
    )


def template(devices: int = 1) -> dict:
    return with_sharding(jax.eval_shape(lambda: tree(0)), replicated(make_mesh(devices=jax.devices()[:devices])))


def of_one_device(shape: tuple[int, ...], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
    return with_sharding(jax.ShapeDtypeStruct(shape, dtype), replicated(make_mesh(devices=jax.devices()[:1])))


def assert_equal(ours: dict, theirs: dict) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("devices", [1, 4])
def test_trees_come_back_on_other_devices(tmp_path: Path, devices: int, caplog: pytest.LogCaptureFixture) -> None:
    with CheckpointWriter(tmp_path / "c", keep=2) as checkpoints:
        checkpoints.save(5, {"params": tree(1), "opt_state": tree(2)})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest_step() == 5
        restored = checkpoints.restore(5, {"opt_state": template(devices), "params": template(devices)})
        assert_equal(restored["params"], tree(1))
        assert_equal(restored["opt_state"], tree(2))
        assert len(restored["params"]["b"].sharding.device_set) == devices
    assert [record for record in caplog.records if record.levelname != "INFO"] == []  # nothing a user would see


def test_one_tree_can_be_read_alone(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": tree(1), "opt_state": tree(2)})
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(1, {"params": template()})["params"], tree(1))


@pytest.mark.parametrize("harm", [shutil.rmtree, lambda folder: flip(0.5)(next(folder.glob("d/*")))])
def test_who_reads_the_parameters_needs_no_optimizer_state(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    with CheckpointWriter(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": tree(1), "opt_state": tree(2)})
    harm(tmp_path / "1" / "opt_state")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.newest_step() == 1
        assert_equal(checkpoints.restore(1, {"params": template()})["params"], tree(1))
    with CheckpointWriter(tmp_path, keep=1) as checkpoints:
        for templates in ({"params": template()}, {"params": template(), "opt_state": template()}):
            with pytest.raises(BertjaxError, match=r"1 is damaged \(opt_state/"):
                checkpoints.restore(1, templates)
    (tmp_path / "1" / "params" / "more").write_text("")
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(BertjaxError, match="params/more does not belong"):
        checkpoints.newest_step()


def test_a_donated_tree_is_saved_as_it_was(tmp_path: Path) -> None:
    add = jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0)
    state = tree(3)
    with CheckpointWriter(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": state})
        for _ in range(20):
            state = add(state)
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(1, {"params": template()})["params"], tree(3))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3, 10):
            checkpoints.save(step, {"params": tree(step)})
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [3, 10]


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest_step() is None


MISFITS: list[tuple[dict, str]] = [
    ({**template(), "c": jax.ShapeDtypeStruct((2,), jnp.float32)}, "c"),
    ({"b": template()["b"]}, "a: - Source: MISSING"),
    ({**template(), "b": of_one_device((), jnp.float32)}, "params/b is int32[] and should be float32[]"),
    (
        {**template(), "a": {"kernel": of_one_device((300, 70), jnp.bfloat16)}},
        "is float32[300, 70] and should be bf",
    ),
    (
        {**template(), "a": {"kernel": of_one_device((70, 300), jnp.float32)}},
        "is float32[300, 70] and should be float32[70, 300]",
    ),
]


def test_a_checkpoint_of_another_model_is_refused_on_one_line(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with CheckpointWriter(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": tree(1)})
    for misfit, told in MISFITS:
        with Checkpoints(tmp_path) as checkpoints, pytest.raises(BertjaxError, match="is not of this model") as error:
            checkpoints.restore(1, {"params": misfit})
        assert "\n" not in str(error.value) and str(tmp_path / "1") in str(error.value) and told in str(error.value)
    gc.collect()
    assert capfd.readouterr().err == ""


# Damage


def flip(at: float) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[round(at * (len(content) - 1))] ^= 1
        file.write_bytes(content)

    return damage


DAMAGES: list[Callable[[Path], object]] = [
    flip(0),
    flip(0.5),
    flip(1),
    lambda file: os.truncate(file, file.stat().st_size - 1),
    lambda file: os.truncate(file, file.stat().st_size // 2),
    lambda file: file.write_bytes(b""),
    lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    lambda file: file.unlink(),
    lambda file: (file.unlink(), file.mkdir()),
    lambda file: (file.rename(f"{file}.away"), file.symlink_to(f"{file}.away")),
]


def test_no_damage_to_any_file_is_read_silently(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"params": tree(step)})
    shutil.copytree(tmp_path / "2", tmp_path / "sound")
    files = [file.relative_to(tmp_path / "sound") for file in (tmp_path / "sound").rglob("*") if file.is_file()]
    caught = 0
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 2
        for file in files:
            for damage in DAMAGES:
                shutil.rmtree(tmp_path / "2")
                shutil.copytree(tmp_path / "sound", tmp_path / "2")
                damage(tmp_path / "2" / file)
                with pytest.warns(UserWarning, match=r"checkpoint .*/2 is damaged \(.*; 1 is used instead"):
                    assert checkpoints.latest_step() == 1
                with pytest.raises(BertjaxError, match="2 is damaged"):
                    checkpoints.restore(2, {"params": template()})
                caught += 1
        assert_equal(checkpoints.restore(1, {"params": template()})["params"], tree(1))
    assert caught == len(files) * len(DAMAGES) >= 100
    assert (tmp_path / "2").is_dir()  # a reader touches nothing


def test_who_writes_sets_damaged_ones_aside_and_saves_anew(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"params": tree(step)})
    for name in ("damaged-2", "damaged-2-2"):
        (tmp_path / "3").mkdir()  # newer, and empty
        os.truncate(tmp_path / "2" / "params" / "_METADATA", 5)
        with CheckpointWriter(tmp_path, keep=2) as checkpoints:
            with pytest.warns(UserWarning, match="is damaged") as warned:
                assert checkpoints.latest_step() == 1
            assert "/2 is damaged (params/_METADATA has 5 bytes" in str(warned[1].message)
            assert f"and set aside as {name}; 1 is used instead" in str(warned[1].message)
            assert checkpoints.latest_step() == 1
            assert_equal(checkpoints.restore(1, {"params": template()})["params"], tree(1))
            checkpoints.save(2, {"params": tree(2)})
    with CheckpointWriter(tmp_path, keep=1) as checkpoints:
        assert_equal(checkpoints.restore(2, {"params": template()})["params"], tree(2))
        checkpoints.save(4, {"params": tree(4)})
    left = {"4", "damaged-2", "damaged-2-2", "damaged-3", "damaged-3-2"}
    assert {path.name for path in tmp_path.iterdir()} == left  # set aside, and never counted nor removed


def test_where_none_is_sound_nothing_is_touched(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"params": tree(step)})
    for step in (1, 2):
        (tmp_path / str(step) / "manifest.json").unlink()
        with CheckpointWriter(tmp_path, keep=2) as checkpoints:
            if step == 1:
                assert checkpoints.latest_step() == 2
            else:
                with pytest.raises(BertjaxError, match=r"2 is damaged \(manifest.json is gone\) and all 2 of them are"):
                    checkpoints.latest_step()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_only_numbers_are_checkpoints(tmp_path: Path) -> None:
    for name in ("partial-7", "damaged-7", "07", "-7", "7x", "٧", "partial-8.orbax-checkpoint-tmp"):
        (tmp_path / name).mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
    assert len(list(tmp_path.iterdir())) == 7
    with CheckpointWriter(tmp_path, keep=1):
        pass
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("partial")] == []


# Failure


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """No file can grow past 10 kB."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_save_that_fails_is_said_on_one_line(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    message = r"cannot save checkpoint .*/1 \(File too large\) and there is none yet; make room"
    with no_room(), pytest.raises(BertjaxError, match=message), CheckpointWriter(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": tree(1)})
    assert list(tmp_path.iterdir()) == []
    with CheckpointWriter(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": tree(1)})
    message = r"cannot save checkpoint .*/2 \(File too large\) and checkpoint 1 stays the newest"
    with (
        no_room(),
        pytest.raises(BertjaxError, match=message) as error,
        CheckpointWriter(tmp_path, keep=1) as checkpoints,
    ):
        checkpoints.save(2, {"params": tree(2)})
        checkpoints.save(3, {"params": tree(3)})
    assert "\n" not in str(error.value) and capfd.readouterr().err == ""
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
        assert_equal(checkpoints.restore(1, {"params": template()})["params"], tree(1))
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_run_may_go_on_after_a_save_that_failed(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=1, on_failure="continue") as checkpoints:
        with no_room():
            checkpoints.save(1, {"params": tree(1)})
            with pytest.warns(UserWarning, match="/1 .*there is none yet.*; the run goes on until the next is due"):
                assert checkpoints.latest_step() is None
        checkpoints.save(2, {"params": tree(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_a_last_save_that_failed_is_an_error(tmp_path: Path) -> None:
    checkpoints = CheckpointWriter(tmp_path, keep=1, on_failure="continue")
    with (
        pytest.warns(UserWarning, match="the run goes on"),
        pytest.raises(BertjaxError, match="cannot save checkpoint .*/2 .*1 stays the newest"),
        checkpoints,
    ):
        checkpoints.save(1, {"params": tree(1)})
        checkpoints.failed(2, OSError(28, "No space left on device"))


def test_a_save_that_failed_does_not_hide_another_error(tmp_path: Path) -> None:
    with (
        no_room(),
        pytest.warns(UserWarning, match="cannot save checkpoint"),
        pytest.raises(ZeroDivisionError),
        CheckpointWriter(tmp_path, keep=1) as checkpoints,
    ):
        checkpoints.save(1, {"params": tree(1)})
        1 / 0  # noqa: B018


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with (
        pytest.raises(BertjaxError, match=r"cannot save checkpoint .*run/c/1 .*No such file or directory"),
        CheckpointWriter(tmp_path / "run" / "c", keep=1) as checkpoints,
    ):
        checkpoints.save(1, {"params": tree(1)})
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_published_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error", "the disk")

    monkeypatch.setattr("bertjax.runs.checkpoint_writer.write_manifest", fail)
    with (
        pytest.raises(BertjaxError, match="the disk: Input/output error"),
        CheckpointWriter(tmp_path, keep=1) as checkpoints,
    ):
        checkpoints.save(1, {"params": tree(1)})
    assert list(tmp_path.iterdir()) == []


KILLED = """
import faulthandler, json, os, signal, sys
from pathlib import Path
import numpy as np
from bertjax.runs.checkpoint_writer import CheckpointWriter

def save(folder, event, name):
    faulthandler.dump_traceback_later(60, exit=True)
    def kill(happening, args):
        if happening == event and os.fsdecode(args[0]).endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)
    with CheckpointWriter(Path(folder), keep=1) as checkpoints:
        checkpoints.save(1, {"params": {"a": np.ones(1000, np.float32)}})
        checkpoints.latest_step()  # waits
        sys.addaudithook(kill)
        checkpoints.save(2, {"params": {"a": np.zeros(1000, np.float32)}})

children = []
for arguments in json.loads(sys.argv[1]):  # each in a process that has all imported, and no threads yet
    if not (child := os.fork()):
        save(*arguments)
        os._exit(0)
    children.append(child)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""
# What Python is about to do to which file when it is killed, and which checkpoint is then the newest.
KILLS = [
    ("os.mkdir", "partial-2-2.orbax-checkpoint-tmp", 1),
    ("os.rename", "partial-2-2.orbax-checkpoint-tmp/params.orbax-checkpoint-tmp", 1),
    ("os.rename", "partial-2-2.orbax-checkpoint-tmp", 1),
    ("open", "partial-2-2/params/_METADATA", 1),  # to be hashed
    ("open", "partial-2-2/manifest.json", 1),
    ("os.rename", "partial-2-2", 1),
    ("os.rename", "/1", 2),
    ("os.rmdir", "params", 2),
]


def test_a_kill_while_saving_leaves_a_sound_checkpoint(tmp_path: Path) -> None:
    arguments = [(str(tmp_path / str(number)), event, name) for number, (event, name, _) in enumerate(KILLS)]
    command = [sys.executable, "-c", KILLED, json.dumps(arguments)]
    codes = subprocess.run(command, check=True, capture_output=True, timeout=120).stdout
    assert json.loads(codes) == [-signal.SIGKILL] * len(KILLS)
    params = {"a": of_one_device((1000,), jnp.float32)}
    for number, (_, _, newest) in enumerate(KILLS):
        folder = tmp_path / str(number)
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.latest_step() == newest  # and no warning: nothing looks like damage
            np.testing.assert_array_equal(checkpoints.restore(newest, {"params": params})["params"]["a"], 2 - newest)
        with CheckpointWriter(folder, keep=1) as checkpoints:
            checkpoints.save(3, {"params": {"a": np.full(1000, 3.0, np.float32)}})
        assert [path.name for path in folder.iterdir()] == ["3"]


def test_a_write_that_orbax_never_began_prints_nothing(tmp_path: Path) -> None:
    async def async_serialize_from_host() -> None:
        async def write_fragment() -> None:
            pass

        write_fragment()  # as its closed event loop leaves it

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for entered in (contextlib.nullcontext(), CheckpointWriter(tmp_path, keep=1)):
            with entered, contextlib.suppress(StopIteration):
                async_serialize_from_host().send(None)
            assert len(warned) == 1, [str(warning.message) for warning in warned]
