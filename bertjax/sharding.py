"""The mesh of devices, and where parameters and batches lie on it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

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
    total = len(jax.tree.leaves(batch)[0])
    return place_rows(batch, Rows(range(total), total), mesh)


class Rows(NamedTuple):
    """Consecutive rows of a batch that is spread over the mesh."""

    some: range
    total: int  # rows of the whole batch


def rows_here(num_rows: int, mesh: Mesh, parts: int = 1) -> Rows:
    """Those that this process's devices are to have of a batch of `num_rows`, filled up as `place_batch` does it."""
    total = num_rows + -num_rows % (mesh.size * parts)
    on_devices = by_rows(mesh).addressable_devices_indices_map((total,)).values()
    bounds = [index[0].indices(total) for index in on_devices if index is not None]
    return Rows(range(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds)), total)


def place_rows(batch: T, rows: Rows, mesh: Mesh) -> T:
    """The whole batch over the mesh, of which every process gives the rows that its devices are to have.

    Args:
      batch: the rows `rows.some`; they may be more than those needed.
    """
    first = rows.some.start

    def place(x: np.ndarray) -> jax.Array:
        def on_device(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(rows.total)
            return x[start - first : stop - first]

        return jax.make_array_from_callback((rows.total, *x.shape[1:]), by_rows(mesh), on_device)

    return jax.tree.map(place, batch)


def with_sharding(template: Any, sharding: jax.sharding.Sharding) -> Any:
    """A tree of `jax.ShapeDtypeStruct`s, each told where it is to lie."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), template)
