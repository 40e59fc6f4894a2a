"""Recipes: those we ship, what a file and overrides make of them, and every way to get one wrong."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest

from bertjax.config import BertConfig, Config, DataConfig, MeshConfig, OptimConfig, TrainConfig
from bertjax.config.keys import RENAMED, TYPES
from bertjax.config.recipes import flat, load_config, recipe_names, save_config
from bertjax.errors import BertjaxError

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe and returns its path."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(path, overrides=()):
    """The one line that says why a recipe is refused."""
    with pytest.raises(BertjaxError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert message and message == " ".join(message.splitlines())
    return message


# The recipes we ship.


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_and_has_a_folder_of_its_own(path):
    assert load_config(path).run_dir == f"runs/{path.stem}"


@pytest.mark.parametrize("name", ["textbook", "base", "large"])
def test_recipe_has_the_named_model(name):
    assert load_config(CONFIGS / f"{name}.yaml").model == getattr(BertConfig, name)()
    assert getattr(BertConfig, name)(vocab_size=99).vocab_size == 99


def test_published_sizes():
    sizes = ("num_layers", "hidden_size", "num_heads", "intermediate_size")
    assert [getattr(BertConfig.base(), size) for size in sizes] == [12, 768, 12, 3072]
    assert [getattr(BertConfig.large(), size) for size in sizes] == [24, 1024, 16, 4096]
    assert [getattr(BertConfig.textbook(), size) for size in sizes] == [2, 128, 2, 256]


def test_textbook_figures():
    values = flat(load_config(CONFIGS / "textbook.yaml"))
    expected = {
        "data.source": "wikitext-2",
        "data.fallback": "python-docs",
        "data.max_length": 64,
        "data.too_long": "drop",
        "data.predict_unk": True,
        "data.mlm_probability": 0.15,
        "tokenizer.min_frequency": 5,
        "model.dropout": 0.2,
        "model.max_position": 1000,
        "model.hidden_act": "relu",
        "optim.name": "adam",
        "optim.learning_rate": 0.01,
        "optim.schedule": "constant",
        "optim.warmup_steps": 0,
        "optim.clip_norm": None,
        "train.batch_size": 512,
        "train.gradient_accumulation_steps": 4,
        "train.steps": 50,
    }
    assert {key: values[key] for key in expected} == expected


def test_published_figures():
    """Devlin et al. 2019, appendix A.2."""
    expected = {
        "data.objective": "mlm+nsp",
        "data.mlm_probability": 0.15,
        "data.mask_unit": "token",
        "tokenizer.kind": "wordpiece",
        "tokenizer.vocab_size": 30522,
        "tokenizer.lowercase": True,
        "model.dropout": 0.1,
        "model.hidden_act": "gelu",
        "model.max_position": 512,
        "optim.name": "adamw",
        "optim.learning_rate": 1e-4,
        "optim.b1": 0.9,
        "optim.b2": 0.999,
        "optim.weight_decay": 0.01,
        "optim.warmup_steps": 10_000,
        "optim.schedule": "linear",
        "train.steps": 1_000_000,
        "train.batch_size": 256,
    }
    base, large = (flat(load_config(CONFIGS / f"{name}.yaml")) for name in ("base", "large"))
    assert {key: base[key] for key in expected} == expected
    assert {key for key in base if base[key] != large[key]} - {"run_dir"} == {
        f"model.{size}" for size in ("hidden_size", "num_layers", "num_heads", "intermediate_size")
    }


def test_the_modern_recipe_is_what_it_says():
    recipe = load_config(CONFIGS / "modern-base.yaml")
    model = recipe.model
    assert (model.norm, model.positions, model.hidden_act, model.biases) == ("pre", "rotary", "geglu", False)
    assert (recipe.data.objective, recipe.data.mlm_probability, recipe.optim.schedule) == ("mlm", 0.3, "wsd")


# Recipes by name.


def test_a_recipe_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe_names() == sorted(path.stem for path in RECIPES)
    for path in RECIPES:
        assert load_config(path.stem, ["seed=5"]) == load_config(path, ["seed=5"])


def test_a_file_goes_before_a_name_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base").mkdir()
    Path("tiny").write_text("seed: 77")
    assert load_config("tiny").seed == 77
    assert load_config("base") == load_config(CONFIGS / "base.yaml")


@pytest.mark.parametrize("name", ["textbok", "Textbook", "", "~", "a\0b", "x" * 500])
def test_a_wrong_name_lists_the_names(name):
    message = refusal(name)
    assert f"there is no recipe {name!r}" in message and ", ".join(recipe_names()) in message


@pytest.mark.parametrize("name", ["textbook.yml", "./textbook", "configs/none", "/"])
def test_a_path_is_never_taken_for_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert f"config {Path(name)} cannot be read" in refusal(name)


# Keys that had another name.

OLD_RUN = Path(__file__).parents[1] / "reference/run/at_step_3/config.yaml"


def test_a_run_of_an_older_version_is_read():
    values = flat(load_config(OLD_RUN))
    assert all(f"{old.split('.')[1]}:" in OLD_RUN.read_text() for old in RENAMED)
    assert {new: values[new] for new in RENAMED.values()} == {
        "data.mlm_probability": 0.2,
        "data.mlm_probability_end": None,
        "eval.mlm_probability": None,
        "train.gradient_accumulation_steps": 2,
        "model.tie_word_embeddings": False,
    }


def test_renaming_leaves_values_as_they_are_written(recipe):
    text = "run_dir: '1e3'\ndata: {mlm_rate: 2e-1, path: '007'}\nmodel: &m\n  # as ever\n  tied_head: no\n"
    new = text.replace("mlm_rate", "mlm_probability").replace("tied_head", "tie_word_embeddings")
    config = load_config(recipe(text))
    assert (config.run_dir, config.data.mlm_probability, config.data.path) == ("1e3", 0.2, "007")
    assert config == load_config(recipe(new))


@pytest.mark.parametrize("old, new", RENAMED.items())
def test_renamed_key(recipe, old, new):
    assert old not in TYPES and new in TYPES
    part, _, name = old.partition(".")
    assert f"both {old} and {new}" in refusal(recipe(f"{part}: {{{name}: 1, {new.split('.')[1]}: 1}}"))
    assert refusal(recipe("seed: 1"), [f"{old}=1"]) == f"{old} is now {new}; give that"
    assert refusal(recipe(f"{part}: {{{name}: x}}")).startswith(f"{new}: expected ")
    assert refusal(recipe(f"{part}: {{{name}: [1]}}")).startswith(f"{old}: expected ")


# Loading and saving.


def test_file_then_overrides(recipe):
    path = recipe("seed: 3\ntrain: {steps: 10, batch_size: 4}\noptim: {learning_rate: 3e-4, clip_norm: 1}\n")
    overrides = ["train.steps=200", "data.fallback=python-docs", "optim.clip_norm=null", "optim.eps=1e-6"]
    expected = Config(
        seed=3,
        data=DataConfig(fallback="python-docs"),
        optim=OptimConfig(learning_rate=0.0003, eps=1e-6),
        train=TrainConfig(steps=200, batch_size=4),
    )
    assert load_config(path, overrides) == expected


@pytest.mark.parametrize("text, value", [("3e-4", 3e-4), ("1e-12", 1e-12), ("1", 1.0), ("2.5E+1", 25.0)])
def test_numbers_without_a_point_are_numbers(recipe, text, value):
    loaded = load_config(recipe(f"optim:\n  learning_rate: {text}")).optim.learning_rate
    assert loaded == value and type(loaded) is float


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(
            optim=OptimConfig(learning_rate=3e-4, eps=1e-12, clip_norm=None), model=BertConfig(layer_norm_eps=1e-12)
        ),
        Config(optim=OptimConfig(learning_rate=0.1 + 0.2, eps=5e-324, clip_norm=1.7e308)),
        Config(seed=2**32 - 1, model=BertConfig.textbook(vocab_size=20000), train=TrainConfig(steps=2**31 - 1)),
        Config(run_dir="runs/é: 1 #2", data=DataConfig(path="/a b/'c'", cache="123", predict_unk=True)),
    ],
)
def test_save_and_load_give_the_same(tmp_path, config):
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_flat_names_every_key():
    values = flat(Config(seed=7, train=TrainConfig(steps=9)))
    assert (values["seed"], values["train.steps"], values["model.vocab_size"]) == (7, 9, None)
    assert not any(isinstance(value, dict) for value in values.values())


def test_a_configuration_waits_for_no_library():
    code = "import bertjax.config, sys; assert not {'jax', 'numpy', 'jsonargparse', 'yaml'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_parts_are_frozen():
    config = Config()
    for part in [config, *(getattr(config, field.name) for field in dataclasses.fields(config))]:
        if dataclasses.is_dataclass(part):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(part, dataclasses.fields(part)[0].name, None)


# Keys and types that are wrong.


@pytest.mark.parametrize(
    "text, given, meant",
    [
        ("sed: 1", "sed", "seed"),
        ("trian: {steps: 3}", "trian", "train"),
        ("model: {hidden_sise: 8}", "hidden_sise", "model.hidden_size"),
        ("train:\n  stepss: 3", "stepss", "train.steps"),
        ("steps: 3", "steps", "train.steps"),
        ("model: {zzz: 8}", "zzz", "--help"),
        ("colour: red", "colour", "--help"),
    ],
)
def test_unknown_key_in_a_file(recipe, text, given, meant):
    message = refusal(recipe(text))
    assert f"{given};" in message and meant in message.split(";")[1]


@pytest.mark.parametrize(
    "override, meant",
    [
        ("sed=1", "seed"),
        ("train.stepss=4", "train.steps"),
        ("trian.steps=4", "train.steps"),
        ("tokenizer.min_freq=3", "tokenizer.min_frequency"),
        ("colour=red", "--help"),
        ("=3", "--help"),
        ("seed", "key=value"),
        ("train.batch_size", "key=value"),
    ],
)
def test_unknown_or_unfinished_override(recipe, override, meant):
    message = refusal(recipe("seed: 1"), ["train.steps=3", override])
    assert override in message and meant in message.split(override)[1]


WRONG_TYPES = [  # key, value in YAML, what the message offers
    ("seed", "x", "whole number"),
    ("seed", "1.5", "whole number"),
    ("train.steps", "true", "whole number"),
    ("train.steps", "[1]", "whole number"),
    ("optim.learning_rate", "fast", "number"),
    ("optim.learning_rate", "true", "number"),
    ("data.predict_unk", "maybe", "true or false"),
    ("data.predict_unk", "1", "true or false"),
    ("data.source", "wiki", "wikitext-2, python-docs"),
    ("data.objective", "nsp", "mlm+nsp, mlm+sop, mlm"),
    ("data.mask_unit", "words", "token, word, span"),
    ("model.hidden_act", "tanh", "gelu, gelu_tanh, relu"),
    ("run_dir", "3", "text"),
    ("model.vocab_size", "big", "a whole number or null"),
    ("model.vocab_size", "7.5", "a whole number or null"),
    ("optim.clip_norm", "x", "a number or null"),
    ("data.fallback", "wiki", "one of python-docs or null"),
    ("data.cache", "[1, 2]", "text or null"),
]


@pytest.mark.parametrize("key, value, remedy", WRONG_TYPES)
def test_wrong_type(recipe, key, value, remedy):
    message = refusal(recipe(f"{key}: {value}"))
    assert message.startswith(f"{key}: ") and value.lower() in message.lower() and remedy in message
    if key not in ("run_dir", "data.cache"):  # which take any text from the command line
        assert refusal(recipe("seed: 0"), [f"{key}={value}"]).startswith(f"{key}: ")


def test_null_where_a_value_must_be(recipe):
    let_pass = []
    for key in [key for key, value in flat(Config()).items() if value is not None]:
        try:
            load_config(recipe(f"{key}: null"))
            let_pass.append(key)
        except BertjaxError as error:
            assert key in str(error)
        except TypeError as error:
            let_pass.append(f"{key}: {error}")
    assert let_pass == []


def test_null_as_an_override(recipe):
    assert "train.steps: expected a whole number" in refusal(recipe("seed: 0"), ["train.steps=null"])


@pytest.mark.parametrize("text", ["model: 3", "model: [1]", "model: null", "model:", "model: bert", "model: ''"])
def test_part_that_is_no_mapping(recipe, text):
    message = refusal(recipe(f"seed: 1\n{text}\n"))
    assert "model is a section and takes keys" in message


@pytest.mark.parametrize("override", ["model=3", "model=null", "model=", "model=other.yaml"])
def test_override_of_a_part(recipe, tmp_path, monkeypatch, override):
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text("hidden_size: 24")
    message = refusal(recipe("seed: 1"), [override])
    assert message.startswith("model") and "takes keys" in message


def test_part_that_names_a_file_is_no_include(recipe, tmp_path):
    (tmp_path / "other.yaml").write_text("hidden_size: 24")
    assert "model is a section and takes keys" in refusal(recipe("model: other.yaml"))


# Values that cannot be. Each row: keys, and what the message must hold.

IMPOSSIBLE = [
    (["train.steps=0"], ["train.steps=0", "1 or more"]),
    (["train.batch_size=-8"], ["train.batch_size=-8", "1 or more"]),
    (["train.log_every=0"], ["train.log_every=0", "1 or more"]),
    (["train.gradient_accumulation_steps=0"], ["train.gradient_accumulation_steps=0", "1 or more"]),
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
    (["model.positions=rotary", "model.hidden_size=60"], ["model.positions=rotary", "a head has 5", "even"]),
    (["optim.muon_learning_rate=0"], ["optim.muon_learning_rate=0", "positive"]),
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
def test_impossible_value(recipe, keys, parts):
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


# Files that are no recipe.


@pytest.mark.parametrize("content", ["", "# nothing\n", "- 1\n", "text", "3"])
def test_file_without_keys(recipe, content):
    message = refusal(recipe(content))
    assert "holds no keys" in message and "seed: 1" in message


@pytest.mark.parametrize("content", ["seed: 1\na: b: c\n", "seed: 1\n{", "seed: 1\n\tx: 1", "seed: 1\n@", "seed: \0"])
def test_invalid_yaml(recipe, content):
    message = refusal(recipe(content))
    assert "config" in message and ("line 2" in message or "line 3" in message or "position" in message)


def test_yaml_makes_no_objects(recipe, tmp_path):
    message = refusal(recipe(f"run_dir: !!python/object/apply:os.mkdir ['{tmp_path}/made']"))
    assert "python/object" in message and not (tmp_path / "made").exists()


def test_not_utf8(recipe):
    message = refusal(recipe("run_dir: caf\xe9".encode("latin-1")))
    assert "config" in message and "not UTF-8" in message and "give" in message


def test_missing_file_and_folder(tmp_path):
    assert str(tmp_path / "none.yaml") in refusal(tmp_path / "none.yaml")
    assert str(tmp_path) in refusal(tmp_path)


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


def test_impossible_meshes(recipe):
    path = recipe("mesh: {data: 0}")
    assert "mesh.data=0 is impossible; give 1 or more" in refusal(path)
    assert "mesh.data and mesh.fsdp are all -1" in refusal(recipe("mesh: {fsdp: -1}"))
