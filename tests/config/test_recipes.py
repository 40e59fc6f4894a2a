"""The recipes that come with bertjax, and what a recipe and overrides make of each other."""

from pathlib import Path

import pytest

from bertjax.config import BertConfig, Config, DataConfig, OptimConfig, TrainConfig
from bertjax.config.recipes import flat, load_config, save_config, shipped_settings

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = {path.relative_to(CONFIGS).with_suffix("").as_posix(): path for path in CONFIGS.rglob("*.yaml")}


# The recipes we ship.


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_loads_and_has_a_folder_of_its_own(name):
    assert load_config(RECIPES[name]).run_dir == f"runs/{name}"


def test_settings_of_all_recipes(tmp_path, monkeypatch):
    """As they are shipped, whatever files there are of their names."""
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_text("seed: 77")
    shipped_settings.cache_clear()
    assert shipped_settings() == {name: flat(load_config(path)) for name, path in RECIPES.items()}


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


def test_the_chapter_recipe_keeps_the_textbooks_constants():
    ours, theirs = (flat(load_config(CONFIGS / f"{name}.yaml")) for name in ("chapter", "textbook"))
    same = {"data.source", "data.fallback", "data.train_split", "data.eval_split", "data.max_length", "data.too_long"}
    same |= {"data.objective", "tokenizer.kind", "tokenizer.min_frequency", "data.predict_unk"}
    same |= {"model.num_layers", "model.hidden_size", "model.num_heads", "model.intermediate_size"}
    same |= {"optim.name", "optim.learning_rate", "train.steps", "train.batch_size"}
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    # Held-out words are masked as often as the textbook's.
    assert ours["eval.mlm_probability"] == theirs["data.mlm_probability"]


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
