"""Recipe files: found by name or path, with keys of older versions, and files that are no recipe."""

from pathlib import Path

import pytest

from bertjax.config.keys import RENAMED, TYPES
from bertjax.config.recipes import flat, load_config, recipe_names, save_config

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = {path.relative_to(CONFIGS).with_suffix("").as_posix(): path for path in CONFIGS.rglob("*.yaml")}


# Recipes by name.


def test_a_recipe_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe_names() == sorted(RECIPES) and "glue/cola" in RECIPES
    for name in ("textbook", "glue/cola"):
        assert load_config(name, ["seed=5"]) == load_config(RECIPES[name], ["seed=5"])


def test_a_file_goes_before_a_name_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base").mkdir()
    Path("tiny").write_text("seed: 77")
    assert load_config("tiny").seed == 77
    assert load_config("base") == load_config(CONFIGS / "base.yaml")


@pytest.mark.parametrize("name", ["textbok", "Textbook", "", "~", "a\0b", "x" * 500])
def test_a_wrong_name_lists_the_names(refusal, name):
    message = refusal(name)
    assert f"there is no recipe {name!r}" in message and ", ".join(recipe_names()) in message


@pytest.mark.parametrize("name", ["textbook.yml", "./textbook", "configs/none", "glue/none", "/"])
def test_a_path_is_never_taken_for_a_name(refusal, tmp_path, monkeypatch, name):
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
def test_renamed_key(refusal, recipe, old, new):
    assert old not in TYPES and new in TYPES
    part, _, name = old.partition(".")
    assert f"both {old} and {new}" in refusal(recipe(f"{part}: {{{name}: 1, {new.split('.')[1]}: 1}}"))
    assert refusal(recipe("seed: 1"), [f"{old}=1"]) == f"{old} is now {new}; give that"
    assert refusal(recipe(f"{part}: {{{name}: x}}")).startswith(f"{new}: expected ")
    assert refusal(recipe(f"{part}: {{{name}: [1]}}")).startswith(f"{old}: expected ")


# Keys that are there twice.


@pytest.mark.parametrize(
    "text, said",
    [
        ("seed: 1\nrun_dir: x\nseed: 1", "seed twice, in line 1 and line 3;"),
        ("train:\n  steps: 1\nseed: 1\ntrain:\n  batch_size: 2", "train twice, in line 1 and line 4;"),
        ("train:\n  steps: 1\n  log_every: 2\n  steps: 1", "train.steps twice, in line 2 and line 4;"),
        ("train: {steps: 1, steps: 2}", "train.steps twice, in line 1;"),
        ("train: {steps: 1}\ntrain.steps: 2", "train.steps twice, in line 1 and line 2;"),
        ("train.steps: 2\ntrain:\n  steps: 1", "train.steps twice, in line 1 and line 3;"),
    ],
)
def test_a_key_twice(refusal, recipe, text, said):
    assert said in refusal(recipe(text))


def test_dotted_keys_and_a_section_make_one_section(recipe):
    for text in ("train.steps: 3\ntrain: {batch_size: 2}", "train: {batch_size: 2}\ntrain.steps: 3"):
        config = load_config(recipe(text))
        assert (config.train.steps, config.train.batch_size) == (3, 2)


def test_keys_are_named_as_they_are_written(refusal, recipe):
    assert "there is no key no;" in refusal(recipe("no: 1"))
    assert "there is no key model.off;" in refusal(recipe("model: {off: 1}"))


# Files that are no recipe.


@pytest.mark.parametrize("content", ["", "# nothing\n", "- 1\n", "text", "3"])
def test_file_without_keys(refusal, recipe, content):
    message = refusal(recipe(content))
    assert "holds no keys" in message and "seed: 1" in message


@pytest.mark.parametrize("content", ["seed: 1\na: b: c\n", "seed: 1\n{", "seed: 1\n\tx: 1", "seed: 1\n@", "seed: \0"])
def test_invalid_yaml(refusal, recipe, content):
    message = refusal(recipe(content))
    assert "config" in message and ("line 2" in message or "line 3" in message or "position" in message)


def test_a_list_is_kept_and_its_texts_stay_as_they_are_written(recipe, tmp_path):
    config = load_config(recipe("task:\n  negatives: [yes, 1.0]\n  matryoshka:\n  - 64\n  - 8\n"))
    assert config.task.negatives == ("yes", "1.0") and config.task.matryoshka == (64, 8)
    save_config(config, tmp_path / "again.yaml")
    assert load_config(tmp_path / "again.yaml") == config
    assert load_config("embed", ["task.matryoshka=[64, 8]", "task.negatives=[yes, '1.0']"]).task.matryoshka == (64, 8)
    assert load_config("embed", ["task.negatives=no"]).task.negatives == "no"


@pytest.mark.parametrize("value", ["[a]", "[[1]]", "3", "[1, null]", "[1.5]", "{a: 1}"])
def test_what_is_no_list_of_whole_numbers(refusal, recipe, value):
    message = refusal(recipe(f"task: {{matryoshka: {value}}}"))
    assert "task.matryoshka: expected [a whole number, ...] or null, got" in message


def test_yaml_makes_no_objects(refusal, recipe, tmp_path):
    message = refusal(recipe(f"run_dir: !!python/object/apply:os.mkdir ['{tmp_path}/made']"))
    assert "python/object" in message and not (tmp_path / "made").exists()


def test_not_utf8(refusal, recipe):
    message = refusal(recipe("run_dir: caf\xe9".encode("latin-1")))
    assert "config" in message and "not UTF-8" in message and "give" in message


def test_missing_file_and_folder(refusal, tmp_path):
    assert str(tmp_path / "none.yaml") in refusal(tmp_path / "none.yaml")
    assert str(tmp_path) in refusal(tmp_path)


@pytest.mark.parametrize("text", ["#2 String", "&a", "# x"])
def test_text_in_which_yaml_sees_nothing_stays_text(tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"task: {{kind: classify, pair: '{text}'}}\n")
    assert load_config(file).task.pair == text == load_config("classify", [f"task.pair={text}"]).task.pair
    save_config(load_config(file), tmp_path / "again.yaml")
    assert load_config(tmp_path / "again.yaml").task.pair == text


@pytest.mark.parametrize("text", ["null", "~"])
def test_what_means_nothing_is_none(text):
    assert load_config("classify", ["task.pair=b", f"task.pair={text}"]).task.pair is None
