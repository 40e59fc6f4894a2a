"""Batches are shared out by rows in equal shares."""

import jax
import numpy as np

from bertjax.sharding import make_mesh, place_batch, replicated, rows_here


def test_the_mesh_takes_every_device() -> None:
    assert make_mesh().size == len(jax.devices()) == 8


def test_each_device_gets_its_share_of_the_rows() -> None:
    rows = place_batch(np.arange(32).reshape(16, 2), make_mesh())
    assert [shard.data.shape for shard in rows.addressable_shards] == [(2, 2)] * 8
    assert [int(shard.data[0, 0]) for shard in rows.addressable_shards] == list(range(0, 32, 4))


def test_replicated_arrays_are_whole_everywhere() -> None:
    array = jax.device_put(np.arange(3), replicated(make_mesh()))
    assert [shard.data.shape for shard in array.addressable_shards] == [(3,)] * 8


def test_rows_of_zeros_make_shares_even() -> None:
    batch = (np.ones((20, 2), np.int32), np.ones((20, 3), np.float32))
    for parts, rows in ((1, 24), (2, 32)):
        placed = place_batch(batch, make_mesh(), parts)
        assert [(x.shape, x.dtype) for x in placed] == [((rows, 2), np.int32), ((rows, 3), np.float32)]
        for x in placed:
            assert (np.asarray(x[:20]) == 1).all() and (np.asarray(x[20:]) == 0).all()


def test_the_rows_of_this_process_are_all_where_it_is_alone() -> None:
    for num_rows, parts, total in ((16, 1, 16), (20, 1, 24), (20, 2, 32)):
        assert rows_here(num_rows, make_mesh(), parts) == (range(total), total)
