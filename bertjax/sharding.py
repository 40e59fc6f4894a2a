"""The mesh of devices, and where parameters and batches lie on it."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bertjax.errors import BertjaxError

T = TypeVar("T")


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """One axis, `data`, over these devices; by default over every device there is."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), devices=devices, axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on each device: parameters and optimiser state."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """Equal shares of the first axis: batches."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_divisible(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Raises BertjaxError where a batch cannot be shared out evenly."""
    if batch_size % (mesh.size * accumulate):
        parts = f"{mesh.size} devices" + (f" times train.accumulate={accumulate}" if accumulate > 1 else "")
        nearest = max(1, batch_size // (mesh.size * accumulate)) * mesh.size * accumulate
        raise BertjaxError(f"train.batch_size={batch_size} is not divisible by {parts}; give {nearest}, for example")


def place_batch(batch: T, mesh: Mesh) -> T:
    """The same batch on the devices, each with its share of the rows."""
    return jax.device_put(batch, by_rows(mesh))


def with_sharding(template: Any, sharding: jax.sharding.Sharding) -> Any:
    """A tree of `jax.ShapeDtypeStruct`s, each told where it is to lie."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), template)
