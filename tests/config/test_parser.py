"""Keys and types that are wrong, in a file and on the command line."""

from pathlib import Path

import pytest

from bertjax.config import Config
from bertjax.config.parser import config_parser, parse_config, typed_keys
from bertjax.config.recipes import flat, load_config
from bertjax.errors import BertjaxError


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
        ("optim: {lr: 3}", "lr", "optim.learning_rate"),
    ],
)
def test_unknown_key_in_a_file(refusal, recipe, text, given, meant):
    message = refusal(recipe(text))
    assert f"{given};" in message and meant in message.split(";")[1]


def test_the_help_of_the_command_that_was_given_is_named(recipe):
    for args in (
        ["--config=tiny", "--colour=red"],
        ["--config=tiny", "--task.zzz", "3"],
        [f"--config={recipe('z: 1')}"],
    ):
        with pytest.raises(BertjaxError, match="'bertjax finetune --help' lists every key"):
            parse_config(config_parser("bertjax finetune"), args)


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
def test_unknown_or_unfinished_override(refusal, recipe, override, meant):
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
    ("run_dir", "[3]", "text"),
    ("model.vocab_size", "big", "a whole number or null"),
    ("model.vocab_size", "7.5", "a whole number or null"),
    ("optim.clip_norm", "x", "a number or null"),
    ("data.fallback", "wiki", "python-docs or null"),
    ("data.cache", "[1, 2]", "text or null"),
]


@pytest.mark.parametrize("key, value, remedy", WRONG_TYPES)
def test_wrong_type(refusal, recipe, key, value, remedy):
    message = refusal(recipe(f"{key}: {value}"))
    assert message.startswith(f"{key}: ") and value.lower() in message.lower() and remedy in message
    if key not in ("run_dir", "data.cache"):  # which take any text from the command line
        assert refusal(recipe("seed: 0"), [f"{key}={value}"]).startswith(f"{key}: ")


@pytest.mark.parametrize(
    "value", ["no", "Yes", "on", "010", "3", "1e3", "0x1F", "1:30", "2024-01-01", "1_0", ".5", "nan"]
)
def test_text_is_as_it_is_written(recipe, value):
    """YAML would make false, 8, 3, 1000.0, 31, 90, a date, 10 and 0.5 of the most of them."""
    in_a_file = load_config(recipe(f"run_dir: {value}\ndata: {{cache: {value}}}\ntrain.steps: 3"))
    typed = load_config(recipe("train.steps: 3"), [f"run_dir={value}", f"data.cache={value}"])
    assert (in_a_file.run_dir, in_a_file.data.cache) == (value, value) and in_a_file == typed


@pytest.mark.parametrize("key", ["train.steps", "model.vocab_size", "optim.learning_rate", "optim.clip_norm"])
@pytest.mark.parametrize("value", ["010", "08", "-012", "0_1", "1:30", "1:30.5"])
def test_a_number_that_is_another_one_in_yaml(refusal, recipe, key, value):
    said = f"{key}={value} is another number in YAML"
    part, name = key.split(".")
    assert said in refusal(recipe(f"{part}: {{{name}: {value}}}"))
    assert said in refusal(recipe(f"{key}: {value}"))
    assert said in refusal(recipe("seed: 0"), [f"{key}={value}"])


def test_a_number_that_is_another_one_in_yaml_as_a_word_of_its_own():
    with pytest.raises(BertjaxError, match="train.steps=010 is another number"):
        parse_config(config_parser(), ["--config=tiny", "--train.steps", "010"])
    config, _ = parse_config(config_parser(), ["--config=tiny", "--run_dir", "010", "--train.steps", "0x10"])
    assert (config.run_dir, config.train.steps) == ("010", 16)


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


def test_null_as_an_override(refusal, recipe):
    assert "train.steps: expected a whole number" in refusal(recipe("seed: 0"), ["train.steps=null"])


@pytest.mark.parametrize("text", ["model: 3", "model: [1]", "model: null", "model:", "model: bert", "model: ''"])
def test_part_that_is_no_mapping(refusal, recipe, text):
    message = refusal(recipe(f"seed: 1\n{text}\n"))
    assert "model is a section and takes keys" in message


@pytest.mark.parametrize("override", ["model=3", "model=null", "model=", "model=other.yaml"])
def test_override_of_a_part(refusal, recipe, tmp_path, monkeypatch, override):
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text("hidden_size: 24")
    message = refusal(recipe("seed: 1"), [override])
    assert message.startswith("model") and "takes keys" in message


def test_part_that_names_a_file_is_no_include(refusal, recipe, tmp_path):
    (tmp_path / "other.yaml").write_text("hidden_size: 24")
    assert "model is a section and takes keys" in refusal(recipe("model: other.yaml"))


def test_keys_that_are_typed():
    argv = ["--config", "tiny", "--resume", "--seed", "3", "--train.steps=9", "--model.num_layers", "-1", "--x.y=1"]
    assert typed_keys(argv) == ["seed", "train.steps", "model.num_layers"]


def test_what_is_typed_wins_over_a_recipe_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("run_dir: theirs\nseed: 1\n")
    config, _ = parse_config(config_parser(), ["--run_dir", "mine", f"--config={tmp_path / 'r.yaml'}", "--seed", "2"])
    assert (config.run_dir, config.seed) == ("mine", 2)
