"""Batches are shared out by rows, or refused."""

import jax
import numpy as np
import pytest

from bertjax.errors import BertjaxError
from bertjax.sharding import check_divisible, data_mesh, place_batch, replicated


def test_the_mesh_takes_every_device() -> None:
    assert data_mesh().size == len(jax.devices()) == 8


def test_each_device_gets_its_share_of_the_rows() -> None:
    rows = place_batch(np.arange(32).reshape(16, 2), data_mesh())
    assert [shard.data.shape for shard in rows.addressable_shards] == [(2, 2)] * 8
    assert [int(shard.data[0, 0]) for shard in rows.addressable_shards] == list(range(0, 32, 4))


def test_replicated_arrays_are_whole_everywhere() -> None:
    array = jax.device_put(np.arange(3), replicated(data_mesh()))
    assert [shard.data.shape for shard in array.addressable_shards] == [(3,)] * 8


def test_a_batch_that_does_not_divide_is_refused() -> None:
    check_divisible(24, 3, data_mesh())
    with pytest.raises(BertjaxError, match=r"train.batch_size=20 is not divisible by 8 devices; give 16, for example"):
        check_divisible(20, 1, data_mesh())
    with pytest.raises(BertjaxError, match=r"8 devices times train.accumulate=2; give 16"):
        check_divisible(24, 2, data_mesh())
