"""Recipes and overrides of every kind: a configuration that can be written and read back, or a clear refusal."""

import pytest
import yaml
from answers import REFUSED, answer, damaged_bytes, json_values
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.config import Config
from bertjax.config.recipes import flat, load_config, save_config

KEYS = sorted(flat(Config()))
WHOLE = yaml.safe_dump({"seed": 1, "train": {"steps": 20, "batch_size": 8}, "optim": {"learning_rate": 1e-2}}).encode()


def values() -> st.SearchStrategy:
    """Of those that a key could nearly have, more often than by chance."""
    near = [
        0,
        1,
        -1,
        2**31,
        2**32,
        10**400,
        0.5,
        float("nan"),
        float("inf"),
        -0.0,
        "",
        "adam",
        "1",
        "1e-2",
        "~",
        "null",
    ]
    near += ["a\0b", "\ud800", "\u202e", "x" * 10_000, "true", True, None, [], {}, [1], {"a": 1}, "{", "- 1", "0x10"]
    return st.sampled_from(near) | json_values() | st.dates()


@st.composite
def recipes(draw: st.DrawFn) -> dict:
    """Known keys, mostly, with values of any kind."""
    recipe: dict = {}
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=4)):
        part, _, name = key.rpartition(".")
        (recipe.setdefault(part, {}) if part else recipe)[name] = draw(values())
    if draw(st.integers(0, 5)) == 0:
        recipe[draw(st.sampled_from(["data", "model", "seeds", 1, None, True, 0.5]))] = draw(values())
    return recipe


def check(tmp_path, content, overrides=()):
    """What is accepted survives being written down."""
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    config = answer(load_config, path, overrides)
    if config is not REFUSED:
        save_config(config, tmp_path / "again.yaml")
        assert load_config(tmp_path / "again.yaml") == config
    return config


@given(recipe=recipes())
@example({"distributed": {"timeout": 10**400}})
def test_recipes(tmp_path, recipe):
    check(tmp_path, yaml.safe_dump(recipe).encode())


@given(content=st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")) | damaged_bytes(WHOLE))
@example(b"")
@example(b"seed: *a")
@example(b"&a [*a]")
@example(b"? {}\n: 1")
@example(b"? [a]\n: 1")
@example(b"<<: 1")
@example(b"!!python/object/apply:os.system [ls]")
@example(b"seed: !!binary x")
@example(b"seed: 2020-13-45")
@example(b"--- 1\n--- 2\n")
@example(b"train:\n  ? [steps]\n  : 1")
@example(b"data: &a {path: *a}")
@example(b"data: &a\n  path: *a\n")
def test_files(tmp_path, content):
    check(tmp_path, content)


@given(
    overrides=st.lists(
        st.text(max_size=30)
        | st.builds("{}={}".format, st.sampled_from(KEYS), st.text(max_size=30) | values().map(str)),
        max_size=3,
    )
)
@example(["config=x"])
@example(["help=1"])
@example(["=1"])
@example(["data=1"])
@example(["seed=--"])
@example(["-h=1"])
@example(["train.steps={"])
@example(["run_dir=[1"])
@example([f"distributed.timeout={10**400}"])
def test_overrides(tmp_path, overrides):
    check(tmp_path, WHOLE, overrides)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_nesting_without_end(tmp_path, opening):
    assert check(tmp_path, b"data: " + opening.encode() * 20_000) is REFUSED
    assert check(tmp_path, WHOLE, [f"run_dir={opening * 3_000}"]) is not None


def test_a_tree_of_aliases(tmp_path):
    """A billion words in a few lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert check(tmp_path, "\n".join(lines).encode()) is REFUSED
    assert check(tmp_path, "\n".join([*lines, "run_dir: *a8"]).encode()) is REFUSED
    inside = "\n".join(f"  {line}" for line in lines)
    assert check(tmp_path, f"train:\n{inside}\n  steps: *a8".encode()) is REFUSED
    assert check(tmp_path, f"data:\n  path: &p {'x' * 9}\nrun_dir: *p".encode()) is not REFUSED
