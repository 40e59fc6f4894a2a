"""The sections: values that cannot be, alone or together, and meshes that suit neither devices nor model."""

import dataclasses
import math
import subprocess
import sys

import pytest

from bertjax.config import BertConfig, Config, MeshConfig
from bertjax.config.recipes import flat, load_config
from bertjax.errors import BertjaxError


def test_a_configuration_waits_for_no_library():
    code = "import bertjax.config, sys; assert not {'jax', 'numpy', 'jsonargparse', 'yaml'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_parts_are_frozen():
    config = Config()
    for part in [config, *(getattr(config, field.name) for field in dataclasses.fields(config))]:
        if dataclasses.is_dataclass(part):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(part, dataclasses.fields(part)[0].name, None)


# Values that cannot be. Each row: keys, and what the message must hold.

IMPOSSIBLE = [
    (["train.steps=0"], ["train.steps=0", "1 or more"]),
    (["train.batch_size=-8"], ["train.batch_size=-8", "1 or more"]),
    (["train.log_every=0"], ["train.log_every=0", "1 or more"]),
    (["train.gradient_accumulation_steps=0"], ["train.gradient_accumulation_steps=0", "1 or more"]),
    (["train.gradient_accumulation_steps=few"], ["expected a whole number or auto, got few"]),
    (
        ["train.batch_size=10", "train.gradient_accumulation_steps=4"],
        ["train.batch_size=10", "train.gradient_accumulation_steps=4", "change one"],
    ),
    (["model.hidden_size=-768"], ["model.hidden_size=-768", "1 or more"]),
    (["model.num_layers=0"], ["model.num_layers=0", "1 or more"]),
    (["model.num_heads=0"], ["model.num_heads=0", "1 or more"]),
    (["model.vocab_size=5"], ["model.vocab_size=5", "6 or more"]),
    (["model.hidden_size=130", "model.num_heads=4"], ["model.hidden_size=130", "model.num_heads=4", "change one"]),
    (["model.max_position=64"], ["data.max_length=128", "model.max_position=64", "shorten"]),
    (["model.dropout=1"], ["model.dropout=1", "rate < 1"]),
    (["model.dropout=-0.1"], ["model.dropout=-0.1", "0 <= rate"]),
    (["model.dropout=.nan"], ["model.dropout=nan", "0 <= rate"]),
    (["model.layer_norm_eps=0"], ["model.layer_norm_eps=0", "positive"]),
    (["data.row_length=127"], ["data.row_length=127", "data.max_length=128", "leave it out"]),
    (["data.max_length=4"], ["data.max_length=4", "5 or more"]),
    (["data.mlm_probability=0"], ["data.mlm_probability=0", "0 < mlm_probability"]),
    (["data.mlm_probability=1.01"], ["data.mlm_probability=1.01", "mlm_probability <= 1"]),
    (["tokenizer.min_frequency=0"], ["tokenizer.min_frequency=0", "1 or more"]),
    (["tokenizer.vocab_size=5"], ["tokenizer.vocab_size=5", "6 to 16,777,216"]),
    (["tokenizer.vocab_size=16777217"], ["tokenizer.vocab_size=16777217", "6 to 16,777,216"]),
    (["tokenizer.strip_accents=true"], ["tokenizer.strip_accents=True", "tokenizer.kind=word", "use wordpiece"]),
    (["optim.warmup_steps=11", "train.steps=10"], ["optim.warmup_steps=11", "train.steps=10", "fewer steps"]),
    (["optim.warmup_steps=-1"], ["optim.warmup_steps=-1", "0 or more"]),
    (["optim.learning_rate=0"], ["optim.learning_rate=0", "positive"]),
    (["optim.learning_rate=.nan"], ["optim.learning_rate=nan", "positive"]),
    (["optim.clip_norm=0"], ["optim.clip_norm=0", "positive"]),
    (["optim.weight_decay=-1"], ["optim.weight_decay=-1", "0 or more"]),
    (["optim.name=adam", "optim.weight_decay=0.1"], ["optim.weight_decay=0.1", "optim.name=adam", "adamw"]),
    (["optim.learning_rate=.inf"], ["optim.learning_rate=inf", "positive"]),
    (["optim.weight_decay=.inf"], ["optim.weight_decay=inf", "0 or more"]),
    (["train.steps=2147483648"], ["train.steps=2147483648", "below 2**31"]),
    (["run_dir=' '"], ["run_dir is empty", "folder"]),
    (["model.init_scale=0"], ["model.init_scale=0", "positive"]),
    (["model.init_scale=.inf"], ["model.init_scale=inf", "positive"]),
    (["model.attention_start=neighbours"], ["model.positions=learned", "model.attention_start=random"]),
    (["model.positions=rotary", "model.hidden_size=60"], ["model.positions=rotary", "a head has 5", "even"]),
    (["optim.muon_learning_rate=0"], ["optim.muon_learning_rate=0", "positive"]),
    (["optim.nsp_learning_rate=0"], ["optim.nsp_learning_rate=0", "positive"]),
    (["optim.decay_share=0"], ["optim.decay_share=0", "decay_share <= 1"]),
    (["data.mlm_probability_end=0"], ["data.mlm_probability_end=0", "mlm_probability_end <= 1"]),
    (["eval.mlm_probability=1.5"], ["eval.mlm_probability=1.5", "mlm_probability <= 1"]),
    (["train.budget=soon", "optim.schedule=wsd"], ["train.budget=soon", "90s, 10m or 2h"]),
    (["train.budget=0m", "optim.schedule=wsd"], ["train.budget=0m", "90s, 10m or 2h"]),
    (["train.budget=10m"], ["train.budget=10m", "optim.schedule=constant", "give wsd"]),
    (["train.budget=10m", "optim.schedule=wsd", "optim.decay_share=1"], ["optim.decay_share=1", "below 1"]),
    (
        ["train.budget=10m", "optim.schedule=wsd", "data.mlm_probability_end=0.3"],
        ["data.mlm_probability_end=0.3", "train.budget=10m"],
    ),
    (["train.batch_warmup_steps=-1"], ["train.batch_warmup_steps=-1", "0 or more"]),
    (["train.batch_warmup_steps=9", "train.steps=8"], ["train.batch_warmup_steps=9", "train.steps=8", "fewer steps"]),
    (
        ["train.batch_warmup_steps=9", "train.budget=10m", "optim.schedule=wsd"],
        ["train.batch_warmup_steps=9", "train.budget=10m", "leave one of them out"],
    ),
    (["eval.best=loss"], ["eval.best=loss", "give eval.every"]),
    (["eval.patience=0", "eval.every=1"], ["eval.patience=0", "1 or more"]),
    (["lora.rank=2", "task.reinit_layers=1"], ["task.reinit_layers=1", "lora.rank=2", "leave one of them out"]),
    (
        ["optim.freeze_layers=2", "task.reinit_layers=1", "model.num_layers=2"],
        ["task.reinit_layers=1", "optim.freeze_layers=2", "never learns"],
    ),
    (
        ["model.share_layers=true", "optim.freeze_layers=2", "model.num_layers=2"],
        ["optim.freeze_layers=2 is above 1 (model.num_layers=2, which share their parameters)"],
    ),
    (["model.share_layers=true", "model.norm=pre", "model.first_attention_norm=false"], ["model.share_layers=true"]),
    (["model.embedding_size=768", "model.hidden_size=768"], ["model.embedding_size=768 is model.hidden_size"]),
    (["lora.rank=0"], ["lora.rank=0", "1 or more"]),
    (["lora.alpha=0"], ["lora.alpha=0", "positive"]),
    (["optim.layer_decay=0"], ["optim.layer_decay=0", "layer_decay <= 1"]),
    (["optim.freeze_layers=-1"], ["optim.freeze_layers=-1", "0 or more"]),
    (["optim.freeze_layers=3", "model.num_layers=2"], ["optim.freeze_layers=3", "model.num_layers=2", "at most"]),
    (["task.reinit_layers=3", "model.num_layers=2"], ["task.reinit_layers=3", "model.num_layers=2", "at most"]),
    (["optim.ema_decay=1"], ["optim.ema_decay=1", "ema_decay < 1"]),
    (["train.nsp_weight=-0.1"], ["train.nsp_weight=-0.1", "0 or more"]),
    (["train.z_loss=-1"], ["train.z_loss=-1", "0 or more"]),
    (["train.z_loss=.nan"], ["train.z_loss=nan", "0 or more"]),
    (["optim.b1=1"], ["optim.b1=1", "b1 < 1"]),
    (["optim.b2=-0.1"], ["optim.b2=-0.1", "0 <= b2"]),
    (["eval.max_length=4"], ["eval.max_length=4", "5 or more"]),
    (["eval.max_length=129"], ["eval.max_length=129", "data.max_length=128", "no longer sequences"]),
    (["eval.every=-1"], ["eval.every=-1", "0 or more"]),
    (["checkpoint.every=-1"], ["checkpoint.every=-1", "0 or more"]),
    (["checkpoint.keep=0"], ["checkpoint.keep=0", "1 or more"]),
    (["seed=-1"], ["seed=-1", "0 or more"]),
    (["seed=4294967296"], ["seed=4294967296", "below 2**32"]),
]


@pytest.mark.parametrize("keys, parts", IMPOSSIBLE, ids=lambda value: value[0])
def test_impossible_value(refusal, recipe, keys, parts):
    message = refusal(recipe("\n".join(key.replace("=", ": ") for key in keys)))
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    "edge",
    [
        "optim.warmup_steps=1000",
        "model.dropout=0",
        "data.mlm_probability=1",
        "data.max_length=512",
        "data.row_length=512",
    ],
)
def test_value_on_the_edge(recipe, edge):
    key, value = edge.split("=")
    assert math.isclose(flat(load_config(recipe("seed: 0"), [edge]))[key], float(value))


# The mesh.


@pytest.mark.parametrize(
    "mesh, devices, sizes",
    [
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(), 1, (1, 1, 1)),
        (MeshConfig(fsdp=4), 8, (2, 4, 1)),
        (MeshConfig(data=1, fsdp=-1), 8, (1, 8, 1)),
        (MeshConfig(data=2, fsdp=2, tensor=2), 8, (2, 2, 2)),
        (MeshConfig(data=1, tensor=-1), 4, (1, 1, 4)),
    ],
)
def test_mesh_takes_every_device(mesh, devices, sizes):
    assert Config(mesh=mesh).mesh_sizes(devices) == sizes


@pytest.mark.parametrize(
    "mesh, devices, parts",
    [
        (MeshConfig(data=3), 8, ["mesh.data=3 x mesh.fsdp=1", "a mesh of 3 devices, and there are 8"]),
        (MeshConfig(fsdp=3), 8, ["mesh.data=2 x mesh.fsdp=3", "of 6 devices, and there are 8"]),
        (MeshConfig(tensor=4), 2, ["of 4 devices, and there are 2"]),
        (MeshConfig(tensor=8), 8, ["model.num_heads=12 is not divisible by mesh.tensor=8"]),
        (MeshConfig(fsdp=5), 5, ["model.hidden_size=768 is not divisible by mesh.fsdp=5"]),
    ],
)
def test_mesh_that_suits_neither_devices_nor_model(mesh, devices, parts):
    with pytest.raises(BertjaxError) as caught:
        Config(mesh=mesh).mesh_sizes(devices)
    assert all(part in str(caught.value) for part in parts)


def test_inner_features_are_split_evenly_too():
    config = Config(model=BertConfig(intermediate_size=3070), mesh=MeshConfig(tensor=4))
    with pytest.raises(BertjaxError, match="model.intermediate_size=3070 is not divisible by mesh.tensor=4"):
        config.mesh_sizes(8)


def test_impossible_meshes(refusal, recipe):
    path = recipe("mesh: {data: 0}")
    assert "mesh.data=0 is impossible; give 1 or more" in refusal(path)
    assert "mesh.data and mesh.fsdp are all -1" in refusal(recipe("mesh: {fsdp: -1}"))
