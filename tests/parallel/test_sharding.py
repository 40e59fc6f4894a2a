"""Where everything lies: the mesh, each leaf by its name, batches by rows in equal shares."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from bertjax.config import BertConfig, OptimConfig
from bertjax.models.bert import Bert, params_template
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.sharding import by_name, by_rows, local_devices, make_mesh, place_batch, replicated, rows_here
from bertjax.train.optimizer import make_optimizer
from bertjax.train.state import make_init, state_template

TIED = BertConfig(vocab_size=96, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=64, max_position=16)
UNTIED = dataclasses.replace(BertConfig.textbook(96), hidden_size=32, intermediate_size=64, max_position=16)

WHOLE = PartitionSpec()
COLUMNS, ROWS = PartitionSpec("fsdp", "tensor"), PartitionSpec("tensor", "fsdp")
WORDS = PartitionSpec("tensor")  # or heads, or inner features
IN_A_LAYER = {
    "attention/query/kernel": COLUMNS,
    "attention/query/bias": WORDS,
    "attention/key/kernel": COLUMNS,
    "attention/key/bias": WORDS,
    "attention/value/kernel": COLUMNS,
    "attention/value/bias": WORDS,
    "attention/out/kernel": ROWS,
    "attention/out/bias": WHOLE,
    "attention_norm/scale": WHOLE,
    "attention_norm/bias": WHOLE,
    "ffn/in/kernel": COLUMNS,
    "ffn/in/bias": WORDS,
    "ffn/out/kernel": ROWS,
    "ffn/out/bias": WHOLE,
    "ffn_norm/scale": WHOLE,
    "ffn_norm/bias": WHOLE,
}
EVERYWHERE = {
    "token_embedding": ROWS,
    "segment_embedding": PartitionSpec(None, "fsdp"),
    "position_embedding": PartitionSpec(None, "fsdp"),
    "pooler/kernel": PartitionSpec("fsdp", None),
    "pooler/bias": WHOLE,
    "nsp/kernel": PartitionSpec("fsdp", None),
    "nsp/bias": WHOLE,
    "mlm/hidden/kernel": PartitionSpec("fsdp", None),
    "mlm/hidden/bias": WHOLE,
    "mlm/norm/scale": WHOLE,
    "mlm/norm/bias": WHOLE,
    **{f"block_{n}/{name}": spec for n in range(2) for name, spec in IN_A_LAYER.items()},
}
OF_TIED = EVERYWHERE | {"mlm/bias": WORDS, "embedding_norm/scale": WHOLE, "embedding_norm/bias": WHOLE}
OF_UNTIED = EVERYWHERE | {"mlm/vocab/kernel": COLUMNS, "mlm/vocab/bias": WORDS}


def specs(tree, sizes: tuple[int, int, int] = (2, 2, 2)) -> dict[str, PartitionSpec]:
    leaves = jax.tree_util.tree_leaves_with_path(by_name(tree, make_mesh(*sizes)))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): sharding.spec for path, sharding in leaves}


def test_a_process_has_devices_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    of_processes = [SimpleNamespace(process_index=number // 2) for number in range(6)]
    monkeypatch.setattr(jax, "devices", lambda: of_processes)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert local_devices() == of_processes[2:4]


def test_the_mesh_takes_every_device() -> None:
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(make_mesh(fsdp=2, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(("config", "expected"), [(TIED, OF_TIED), (UNTIED, OF_UNTIED)], ids=["tied", "textbook"])
def test_where_every_parameter_lies(config: BertConfig, expected: dict[str, PartitionSpec]) -> None:
    assert specs(params_template(Bert(config))) == expected


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb"])
def test_the_optimisers_state_lies_where_the_parameters_do(name) -> None:
    optimizer = make_optimizer(OptimConfig(name=name, warmup_steps=2, clip_norm=1.0), steps=9)
    found = specs(state_template(pretraining_objective(Bert(TIED)), optimizer))
    for mean in ("mu", "nu"):
        of_mean = {path.split(f"/{mean}/")[1]: spec for path, spec in found.items() if f"/{mean}/" in path}
        assert of_mean == OF_TIED
    others = {path: spec for path, spec in found.items() if not {"params", "mu", "nu"} & set(path.split("/"))}
    assert len(others) >= 2 and set(others.values()) == {WHOLE}  # counts of steps


def test_muons_state_lies_where_the_parameters_do() -> None:
    optimizer = make_optimizer(OptimConfig(name="muon", clip_norm=1.0), steps=9)
    found = specs(state_template(pretraining_objective(Bert(TIED)), optimizer).opt_state)
    of_mean = {path.split("/mu/")[1]: (path, spec) for path, spec in found.items() if "/mu/" in path}
    assert {name: spec for name, (_, spec) in of_mean.items()} == OF_TIED  # one mean each, Muon's or AdamW's
    muons = {name for name, (path, _) in of_mean.items() if "/muon/inner_state/" in path}
    assert muons == {name for name in OF_TIED if name.startswith("block_") and name.endswith("kernel")}
    others = {spec for path, spec in found.items() if not {"mu", "nu"} & set(path.split("/"))}
    assert others == {WHOLE}


def test_a_vocabulary_that_tensor_does_not_divide_is_whole() -> None:
    odd = specs(params_template(Bert(dataclasses.replace(TIED, vocab_size=97))))
    changed = {name: spec for name, spec in odd.items() if spec != OF_TIED[name]}
    assert changed == {"token_embedding": PartitionSpec(None, "fsdp"), "mlm/bias": PartitionSpec(None)}


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (1, 8, 1), (2, 1, 4), (2, 2, 2)])
def test_bytes_on_a_device_fall_as_the_mesh_says(sizes: tuple[int, int, int]) -> None:
    config = dataclasses.replace(TIED, hidden_size=64, intermediate_size=256)
    mesh, optimizer = make_mesh(*sizes), make_optimizer(OptimConfig(), 9)
    state = make_init(mesh, pretraining_objective(Bert(config)), optimizer)(0)
    leaves = jax.tree.leaves(state)
    total = sum(leaf.nbytes for leaf in leaves)
    held: dict[jax.Device, int] = dict.fromkeys(mesh.devices.flat, 0)
    for leaf in leaves:
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    assert len(set(held.values())) == 1
    share = held[jax.devices()[0]] / total
    # Biases and norms of hidden features stay whole; over tensor positions, pooler and the MLM head's own layer too.
    unsplit = {1: 0.0, 2: 0.11, 4: 0.09}[sizes[2]]
    assert 1 / math.prod(sizes[1:]) <= share < 1 / math.prod(sizes[1:]) + 0.02 + unsplit
    if sizes[1:] == (1, 1):
        assert share == 1


def test_each_device_gets_its_share_of_the_rows() -> None:
    for sizes, places in (((8, 1, 1), range(8)), ((2, 4, 1), range(8)), ((2, 2, 2), (0, 0, 1, 1, 2, 2, 3, 3))):
        mesh = make_mesh(*sizes)
        rows = place_batch(np.arange(32).reshape(16, 2), mesh)
        assert rows.sharding == by_rows(mesh)
        height = 2 * sizes[2]
        found = {shard.device: shard.data for shard in rows.addressable_shards}
        for device, place in zip(mesh.devices.flat, places, strict=True):
            np.testing.assert_array_equal(found[device], np.arange(32).reshape(16, 2)[place * height :][:height])


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
    assert place_batch(batch, make_mesh(2, 2, 2))[0].shape == (20, 2)  # rows are shared out over four


def test_the_rows_of_this_process_are_all_where_it_is_alone() -> None:
    for num_rows, parts, total in ((16, 1, 16), (20, 1, 24), (20, 2, 32)):
        assert rows_here(num_rows, make_mesh(), parts) == (range(total), total)


def test_programs_of_several_cpus_are_not_kept() -> None:
    # Read again, they hang, or mix up what devices send each other: their collectives have lost their order.
    def kept_alone(x: jax.Array) -> jax.Array:
        return x + 1

    def never_kept(x: jax.Array) -> jax.Array:
        return x.sum()

    def is_kept(name: str) -> bool:
        return any(Path(jax.config.jax_compilation_cache_dir).glob(f"jit_{name}-*"))

    for function, devices in ((kept_alone, 1), (never_kept, 2)):
        mesh = make_mesh(devices=jax.devices()[:devices])
        jax.jit(function)(jax.device_put(np.ones(8), by_rows(mesh))).block_until_ready()
    assert is_kept("kept_alone") and not is_kept("never_kept")
