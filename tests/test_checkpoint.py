"""What is saved comes back bit for bit, on other devices too, or is refused."""

import gc
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.checkpoint import Checkpoints
from bertjax.errors import BertjaxError
from bertjax.sharding import make_mesh, replicated, with_sharding


def tree(seed: int, devices: int = 1) -> dict:
    sharding = replicated(make_mesh(devices=jax.devices()[:devices]))
    rng = np.random.default_rng(seed)
    return jax.device_put(
        {"a": {"kernel": rng.normal(size=(300, 70)).astype(np.float32)}, "b": np.int32(seed)}, sharding
    )


def template(devices: int = 1) -> dict:
    return with_sharding(jax.eval_shape(lambda: tree(0)), replicated(make_mesh(devices=jax.devices()[:devices])))


def assert_equal(ours: dict, theirs: dict) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("devices", [1, 4])
def test_trees_come_back_on_other_devices(tmp_path: Path, devices: int, caplog: pytest.LogCaptureFixture) -> None:
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        checkpoints.save(5, {"params": tree(1), "opt_state": tree(2)})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest_step() == 5
        restored = checkpoints.restore(5, {"opt_state": template(devices), "params": template(devices)})
        assert_equal(restored["params"], tree(1))
        assert_equal(restored["opt_state"], tree(2))
        assert len(restored["params"]["b"].sharding.device_set) == devices
    assert [record for record in caplog.records if record.levelname != "INFO"] == []  # nothing a user would see


def test_one_tree_can_be_read_alone(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": tree(1), "opt_state": tree(2)})
    shutil.rmtree(tmp_path / "1" / "opt_state")
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(1, {"params": template()})["params"], tree(1))


def test_a_donated_tree_is_saved_as_it_was(tmp_path: Path) -> None:
    add = jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0)
    state = tree(3)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": state})
        for _ in range(20):
            state = add(state)
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(1, {"params": template()})["params"], tree(3))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3, 10):
            checkpoints.save(step, {"params": tree(step)})
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [3, 10]


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest_step() is None


def test_a_checkpoint_cut_short_is_refused_quietly(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": tree(1)})
    for file in tmp_path.rglob("d/*"):
        os.truncate(file, file.stat().st_size // 2)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(BertjaxError, match="1 is damaged or of another model"),
    ):
        checkpoints.restore(1, {"params": template()})
    gc.collect()
    assert capfd.readouterr().err == ""


def test_a_checkpoint_that_does_not_fit_is_refused_on_one_line(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"params": tree(1)})
    other = {**template(), "c": jax.ShapeDtypeStruct((2,), jnp.float32)}
    for step, wrong in ((1, other), (2, template())):
        with (
            Checkpoints(tmp_path) as checkpoints,
            pytest.raises(BertjaxError, match="is damaged or of another model") as error,
        ):
            checkpoints.restore(step, {"params": wrong})
        assert "\n" not in str(error.value) and str(tmp_path / str(step)) in str(error.value)
