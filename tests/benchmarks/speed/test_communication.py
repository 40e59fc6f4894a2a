"""Bytes on the wire: of programs whose collectives are known, and of our own step on each mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.speed import scaling
from benchmarks.speed.communication import Collective, collectives, step_collectives
from bertjax.models.bert import num_parameters
from bertjax.parallel.sharding import make_mesh

ROWS, WHOLE = PartitionSpec("fsdp"), PartitionSpec()


def compiled(function, *specs: PartitionSpec, mesh=(2, 4, 1), out: PartitionSpec = WHOLE) -> list[Collective]:
    """The collectives of a function of [16, 8] float32 arrays that lie so; it is shard_mapped."""
    mesh = make_mesh(*mesh)
    mapped = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False))
    arrays = [jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=NamedSharding(mesh, spec)) for spec in specs]
    return collectives(mapped.lower(*arrays).compile().as_text())


def test_every_kind_is_read():
    whole, shard = 16 * 8 * 4, 4 * 8 * 4  # bytes
    (reduced,) = compiled(lambda x: jax.lax.psum(x, "fsdp"), ROWS)
    assert reduced == Collective("all-reduce", shard, 4, 1) and reduced.sent == 2 * 3 / 4 * shard
    (gathered,) = compiled(lambda x: jax.lax.all_gather(x, "fsdp", tiled=True), ROWS)
    assert gathered == Collective("all-gather", whole, 4, 1) and gathered.sent == 3 * shard
    (scattered,) = compiled(lambda x: jax.lax.psum_scatter(x, "fsdp", tiled=True), WHOLE, out=ROWS)
    assert scattered == Collective("reduce-scatter", shard, 4, 1) and scattered.sent == 3 * shard
    (moved,) = compiled(lambda x: jax.lax.ppermute(x, "fsdp", [(0, 1), (1, 2), (2, 3), (3, 0)]), ROWS, out=ROWS)
    assert moved.kind == "collective-permute" and moved.sent == shard
    (turned,) = compiled(lambda x: jax.lax.all_to_all(x, "fsdp", 1, 0), ROWS, mesh=(1, 8, 1), out=ROWS)
    assert turned.kind == "all-to-all" and turned.sent == 7 / 8 * (2 * 8 * 4)


def test_loops_count_as_often_as_they_go_round():
    def function(x):
        return jax.lax.fori_loop(0, 5, lambda _, x: jax.lax.psum(x, "data") * 0.5, x)

    (inside,) = compiled(function, ROWS)
    assert inside.times == 5 and inside.group == 2 and inside.sent == 5 * 4 * 8 * 4


@pytest.mark.parametrize(
    "groups, size",
    [("{{0,2},{1,3}}", 2), ("[2,4]<=[8]", 4), ("mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}", 4)],
)
def test_groups_in_all_their_ways(groups, size):
    line = f"  %y = (f32[3]{{0}}, /*index=1*/pred[5]) all-reduce(%x), replica_groups={groups}"
    program = f"ENTRY %main (x: f32[3]) -> f32[3] {{\n{line}\n}}"
    assert collectives(program) == [Collective("all-reduce", 17, size, 1)]


def test_what_cannot_be_read_is_not_passed_over():
    for line in ("%y = f32[3] all-reduce-start(%x), replica_groups={{0,1}}", "%y = f32[3] all-reduce(%x)"):
        with pytest.raises(AssertionError):
            collectives(f"ENTRY %main (x: f32[3]) -> f32[3] {{\n  {line}\n}}")


@pytest.fixture
def recipe(tiny, devices):
    devices(8)
    sizes = {"vocab_size": 2048, "hidden_size": 64, "num_layers": 1, "num_heads": 4, "intermediate_size": 256}
    model = dataclasses.replace(tiny.model, **sizes)
    return dataclasses.replace(tiny, model=model)


def gradient_bytes(config) -> int:
    """Of all parameters, and of the tied vocabulary once more: from the embeddings, and from the head."""
    return 4 * (num_parameters(config) + config.vocab_size * config.hidden_size)


def sent(found: list[Collective], kind: str) -> float:
    return sum(one.sent for one in found if one.kind == kind)


def test_rows_alone_send_the_gradients_once(recipe):
    found = step_collectives(recipe, 8, 1, 1)
    assert {one.kind for one in found} == {"all-reduce"}
    assert sent(found, "all-reduce") == pytest.approx(2 * 7 / 8 * gradient_bytes(recipe.model), rel=1e-3)


@pytest.mark.parametrize("remat", [False, True])
def test_fsdp_sends_parameters_and_gradients_and_no_activations(recipe, remat):
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, remat=remat))
    found = step_collectives(recipe, 2, 4, 1)
    assert {one.kind for one in found} == {"all-reduce", "all-gather"}
    parameters = 4 * num_parameters(recipe.model)
    in_layers = 4 * (4 * 64 * 64 + 2 * 64 * 256)  # gathered again on the way back with remat
    gathered = 3 / 4 * (parameters + remat * in_layers)
    assert sent(found, "all-gather") == pytest.approx(gathered, rel=0.02)  # less biases and norms, which are whole
    assert sent(found, "all-reduce") <= 2 * 7 / 8 * gradient_bytes(recipe.model) * 1.001


def test_tensor_sends_activations_and_no_parameters(recipe):
    """Of two layers, as many times as there are layers."""
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, num_layers=2))
    found = step_collectives(recipe, 1, 1, 4)
    rows, d = 8 * 24, 64
    assert {one.kind for one in found} == {"all-reduce"}
    # A layer's two sums on the way forward; on the way back those of the inner layer, and of queries, keys and values.
    # Then the embeddings, and the hidden states of the 4 predictions a row.
    activations = 2 * (2 + 4) * rows * d + rows * d + 8 * 4 * d
    assert sum(one.sent for one in found) == pytest.approx(2 * 3 / 4 * 4 * activations, rel=0.02)


def test_expected_figures_by_hand():
    row = scaling.expected("base", scaling.MACHINES[0], 64)
    parameters = 4 * num_parameters(scaling.BertConfig.base(scaling.VOCABULARY))
    assert row["fast_bytes"] == pytest.approx(1.75 * parameters)
    assert row["slow_bytes"] == pytest.approx(2 / 8 * 7 / 8 * parameters)
    seconds = row["fast_bytes"] / 450e9 + row["slow_bytes"] / 50e9
    assert row["least_efficiency"] == pytest.approx(row["step_seconds"] / (row["step_seconds"] + seconds))
    # 6 operations a parameter a token, roughly: the rule of thumb, the embeddings' table left out.
    thumb = 6 * 86e6 * 32 * 512 / (0.4 * 989e12)
    assert row["step_seconds"] == pytest.approx(thumb, rel=0.25)


def test_efficiency_falls_with_devices_and_never_passes_1():
    rows = [scaling.expected("large", scaling.MACHINES[0], devices) for devices in scaling.DEVICES]
    least = [row["least_efficiency"] for row in rows]
    assert least == sorted(least, reverse=True) and all(0 < row["most_efficiency"] <= 1 for row in rows)
