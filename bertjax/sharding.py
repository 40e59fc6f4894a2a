"""The mesh of devices, and where parameters and batches lie on it."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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


def place_batch(batch: T, mesh: Mesh, parts: int = 1) -> T:
    """The batch on the devices, each with an equal share of the rows.

    Rows of zeros, which are padding of weight 0, are added at the end until they can be shared out evenly, and a
    device's rows into so many `parts`.
    """
    missing = -len(jax.tree.leaves(batch)[0]) % (mesh.size * parts)
    if missing:
        batch = jax.tree.map(lambda x: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)), batch)
    return jax.device_put(batch, by_rows(mesh))


def with_sharding(template: Any, sharding: jax.sharding.Sharding) -> Any:
    """A tree of `jax.ShapeDtypeStruct`s, each told where it is to lie."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), template)
