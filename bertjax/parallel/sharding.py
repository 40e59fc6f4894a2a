"""The mesh of devices, and where parameters, optimiser state and batches lie on it.

The mesh has three axes. Over `data` and `fsdp` a batch is split by rows. Over `fsdp` parameters and optimiser state are
split as well (Rajbhandari et al. 2020, arXiv:1910.02054, stage 3): a device gathers a layer's weights when it needs
them. Over `tensor` the computation itself is split (Shoeybi et al. 2019, arXiv:1909.08053): attention heads, features
inside feed-forward layers, and the vocabulary.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bertjax.errors import BertjaxError

T = TypeVar("T")

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")

WHOLE = PartitionSpec()

# By the end of a parameter's path, each of which fits exactly one. `fsdp` splits the hidden features of every matrix,
# `tensor` what is one head's, one inner feature's or one word's alone. Biases and norms of hidden features stay whole:
# they are a thousandth of a model, and a message each. A head that a new objective adds needs its rules here, and its
# answers in tests/parallel/test_rules.py.
RULES = (
    (r"token_embedding", PartitionSpec("tensor", "fsdp")),
    (r"(segment|position|relative)_embedding", PartitionSpec(None, "fsdp")),
    (r"(\w+_)?norm/(scale|bias)", WHOLE),
    (r"attention/(query|key|value)/kernel", PartitionSpec("fsdp", "tensor")),
    (r"attention/(query|key|value)/bias", PartitionSpec("tensor")),
    (r"attention/out/kernel", PartitionSpec("tensor", "fsdp")),
    (r"attention/out/bias", WHOLE),
    (r"relative_attention_bias", PartitionSpec(None, "tensor")),
    (r"ffn/(in|gate)/kernel", PartitionSpec("fsdp", "tensor")),
    (r"ffn/(in|gate)/bias", PartitionSpec("tensor")),
    (r"ffn/out/kernel", PartitionSpec("tensor", "fsdp")),
    (r"ffn/out/bias", WHOLE),
    (r"lora/.+/(attention/(query|key|value)|ffn/(in|gate))/a", PartitionSpec("fsdp", None)),
    (r"lora/.+/(attention/(query|key|value)|ffn/(in|gate))/b", PartitionSpec(None, "tensor")),
    (r"lora/.+/(attention|ffn)/out/a", PartitionSpec("tensor", None)),
    (r"lora/.+/(attention|ffn)/out/b", PartitionSpec(None, "fsdp")),
    (r"(pooler|nsp|classifier|mlm/hidden|embedding_projection)/kernel", PartitionSpec("fsdp", None)),
    (r"(pooler|nsp|classifier|mlm/hidden|embedding_projection)/bias", WHOLE),
    (r"teacher_projection/kernel", PartitionSpec("fsdp", None)),
    (r"mlm/vocab/kernel", PartitionSpec("fsdp", "tensor")),
    (r"mlm/(vocab/)?bias", PartitionSpec("tensor")),
    (r"ns_coeffs", WHOLE),  # no parameter: three numbers in Muon's state
)


def find_devices() -> list[jax.Device]:
    """Returns the devices of all processes.

    Raises:
      BertjaxError: there are none such as JAX_PLATFORMS names, or JAX makes float64 of what is float32 in every model.
    """
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise BertjaxError("JAX_ENABLE_X64 is on, and models are float32 here; unset it, or give it 0")
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where what JAX needs for it is not even installed
        asked = jax.config.jax_platforms  # type: ignore[attr-defined]
        why = str(error).partition(" (set JAX_PLATFORMS")[0].rstrip(".")
        raise BertjaxError(
            f"JAX finds no device for JAX_PLATFORMS={asked}{f' ({why})' if why else ''}; unset it to take those that "
            "there are, or install what it lacks"
        ) from error


def local_devices() -> list[jax.Device]:
    """Returns the devices of this process. Raises what `find_devices` raises."""
    return [device for device in find_devices() if device.process_index == jax.process_index()]


def make_mesh(
    data: int | None = None, fsdp: int = 1, tensor: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Returns the mesh of these sizes; by default every device there is splits rows alone.

    Args:
      data: devices that a batch's rows are split over; by default as many as the other two leave.
      fsdp: devices that rows, parameters and optimiser state are split over.
      tensor: devices that the computation of a row is split over.
      devices: data * fsdp * tensor of them; by default all.
    """
    devices = find_devices() if devices is None else devices
    data = len(devices) // (fsdp * tensor) if data is None else data
    if len(devices) > 1 and devices[0].platform == "cpu":
        _keep_no_programs()
    return jax.make_mesh((data, fsdp, tensor), AXES, devices=devices, axis_types=(AxisType.Auto,) * 3)


def _keep_no_programs() -> None:
    """Keeps what is compiled from now on out of JAX's folder of compiled programs.

    XLA's collectives on CPUs meet in the order in which a program has them. A program that is read from a file has lost
    it (jaxlib 0.10: to read makes one resource a collective, where to compile makes one for all), so that two devices
    wait for each other in two collectives, or exchange what was meant for another.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))


def row_shards(mesh: Mesh) -> int:
    """Returns the number of equal parts that a batch's rows are split in."""
    return int(mesh.shape["data"] * mesh.shape["fsdp"])


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that each device has a whole copy of."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """Returns the sharding by equal shares of the first axis: of batches, and what is computed of them."""
    return NamedSharding(mesh, PartitionSpec(ROW_AXES))


def by_name(tree: Any, mesh: Mesh) -> Any:
    """Returns the sharding of each leaf of a tree of parameters, of their gradients, or of an optimiser's state.

    Scalars, such as counts of steps, are whole on each device, and so is a vocabulary that `tensor` does not divide;
    other sizes divide, which `Config.mesh_sizes` sees to.

    Raises:
      BertjaxError: the mesh splits parameters, and one fits no rule of `RULES`, or several.
    """
    splits = mesh.shape["fsdp"] * mesh.shape["tensor"] > 1

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        if not splits or not leaf.shape:
            return replicated(mesh)
        spec = spec_of(jax.tree_util.keystr(path, simple=True, separator="/"))
        fits = [axis if axis and leaf.shape[i] % mesh.shape[axis] == 0 else None for i, axis in enumerate(spec)]
        return NamedSharding(mesh, PartitionSpec(*fits))

    return jax.tree.map_with_path(place, tree)


def spec_of(path: str) -> PartitionSpec:
    """Returns the axes of the mesh that a parameter's axes are split over.

    Args:
      path: of the parameter, perhaps inside an optimiser's state: `opt_state/0/mu/block_0/ffn/in/kernel`.

    Raises:
      BertjaxError: it fits no rule of `RULES`, or several.
    """
    found = [spec for rule, spec in RULES if re.fullmatch(rf"(.+/)?({rule})", path)]
    if len(found) != 1:
        raise BertjaxError(
            f"{path} fits {len(found) or 'none'} of the rules of bertjax/parallel/sharding.py, which say how a mesh "
            "splits a parameter; give it one in RULES, or train with mesh.fsdp=1 and mesh.tensor=1"
        )
    return found[0]


def place_params(tree: Any, mesh: Mesh) -> Any:
    """Returns parameters over the mesh, by name; each process gives its own devices their shares.

    Args:
      tree: the whole parameters, the same in every process; numpy's, or JAX's on one device.
      mesh: over the devices of all processes.
    """
    return jax.tree.map(placed, tree, by_name(tree, mesh))


def placed(array: np.ndarray | Array, sharding: NamedSharding) -> Array:
    """Returns an array spread over the devices of all processes, each of which has it whole, or spread so already."""
    if isinstance(array, Array) and array.sharding.is_equivalent_to(sharding, array.ndim):
        # One device's own kind of sharding is another type to JAX, which would trace a program anew for it.
        moved: Array = jax.device_put(array, sharding)
        return moved
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def gathered(tree: Any, mesh: Mesh | None) -> Any:
    """Returns parameters, or a part of them, whole over `fsdp`; their gradients are shared out over it again.

    Args:
      tree: of paths long enough for `RULES`: a whole layer's, or the model's.
      mesh: None for a single device.
    """
    if mesh is None or mesh.shape["fsdp"] == 1:
        return tree
    shardings = by_name(tree, mesh)
    return jax.tree.map_with_path(
        lambda path, leaf, sharding: _gathered(leaf, sharding, path[-1].key.endswith("embedding")), tree, shardings
    )


def gathered_outside_layers(params: dict[str, Any], mesh: Mesh | None) -> dict[str, Any]:
    """Returns a model's parameters, those outside its layers whole over `fsdp`; a layer gathers its own."""
    outside: dict[str, Any] = {name: part for name, part in params.items() if not name.startswith("block_")}
    outside = gathered(outside, mesh)
    return params | outside


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(x: Array, sharding: NamedSharding, is_table: bool) -> Array:
    whole = PartitionSpec(*(None if axis == "fsdp" else axis for axis in sharding.spec))
    constrained: Array = jax.lax.with_sharding_constraint(x, NamedSharding(sharding.mesh, whole))
    return constrained


def _gathered_forward(x: Array, sharding: NamedSharding, is_table: bool) -> tuple[Array, None]:
    return _gathered(x, sharding, is_table), None


def _gathered_backward(sharding: NamedSharding, is_table: bool, _: None, grad: Array) -> tuple[Array]:
    if is_table:  # made by a scatter, which XLA would else split by features, and first exchange every token's
        grad = _gathered(grad, sharding, is_table)
    return (jax.lax.with_sharding_constraint(grad, sharding),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def on_rows(x: Array, mesh: Mesh | None) -> Array:
    """Returns the array, told to lie by rows where there are several devices."""
    return x if mesh is None or mesh.size == 1 else jax.lax.with_sharding_constraint(x, by_rows(mesh))


def place_batch(batch: T, mesh: Mesh, parts: int = 1) -> T:
    """Returns the batch on the devices, each with an equal share of the rows.

    Rows of zeros, which are padding of weight 0, are added at the end until they can be shared out evenly.

    Args:
      batch: arrays of one number of rows, whole in this process.
      mesh: devices that the rows are split over.
      parts: equal parts that each device is to be able to split its rows in.
    """
    missing = -len(jax.tree.leaves(batch)[0]) % (row_shards(mesh) * parts)
    if missing:
        batch = jax.tree.map(lambda x: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)), batch)
    total = len(jax.tree.leaves(batch)[0])
    return place_rows(batch, Rows(range(total), total), mesh)


class Rows(NamedTuple):
    """Consecutive rows of a batch that is spread over the mesh."""

    some: range
    total: int  # rows of the whole batch


def rows_here(num_rows: int, mesh: Mesh, parts: int = 1) -> Rows:
    """Returns the rows that this process's devices are to have of a batch.

    Args:
      num_rows: rows of the whole batch, which is filled up as `place_batch` does it.
      mesh: over the devices of all processes.
      parts: as of `place_batch`.
    """
    total = num_rows + -num_rows % (row_shards(mesh) * parts)
    on_devices = by_rows(mesh).addressable_devices_indices_map((total,)).values()
    bounds = [index[0].indices(total) for index in on_devices if index is not None]
    return Rows(range(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds)), total)


def place_rows(batch: T, rows: Rows, mesh: Mesh) -> T:
    """Returns the whole batch over the mesh, of which every process gives the rows that its devices are to have.

    Args:
      batch: the rows `rows.some`; they may be more than those needed.
      rows: of `rows_here`.
      mesh: over the devices of all processes.
    """
    first = rows.some.start

    def place(x: np.ndarray) -> jax.Array:
        def on_device(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(rows.total)
            return x[start - first : stop - first]

        return jax.make_array_from_callback((rows.total, *x.shape[1:]), by_rows(mesh), on_device)

    placed: T = jax.tree.map(place, batch)
    return placed


def with_sharding(template: Any, shardings: Any) -> Any:
    """Returns a tree of `jax.ShapeDtypeStruct`s, each told where it is to lie.

    Args:
      template: a tree of whatever has shape and dtype.
      shardings: one for all leaves, or a tree with one for each.
    """
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        template,
        jax.tree.broadcast(shardings, template),
    )
