"""Values of the right type, and those that can only mean one."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refusal

from bertjax.config import BertConfig, Config, DataConfig, MeshConfig, OptimConfig
from bertjax.config.checks import as_type
from bertjax.config.recipes import load_config, save_config

HOW = Literal["mean", "max"]


@pytest.mark.parametrize(
    "value, kind, expected",
    [
        (3, int, 3),
        (np.int64(3), int, 3),
        (jnp.array(3), int | None, 3),
        (np.float32(0.5), float, 0.5),
        (1, float, 1),
        (np.bool_(True), bool, True),
        (None, int | None, None),
        (Path("a/b"), str, "a/b"),
        (np.str_("a"), str, "a"),
        ("a", Path, Path("a")),
        (np.str_("max"), HOW, "max"),
        ("max", HOW | None, "max"),
        (["a"], Sequence, ["a"]),
    ],
    ids=str,
)
def test_what_can_only_mean_one_thing_is_taken(value: Any, kind: Any, expected: Any) -> None:
    taken = as_type(value, kind, "it")
    assert taken == expected and type(taken) is type(expected)


@pytest.mark.parametrize(
    "value, kind, told",
    [
        (None, Path, "it: expected a path, got None"),
        ("", Path, "it: expected a path, got ''"),
        (b"a", Path, "it: expected a path, got b'a'"),
        (True, int, "it: expected a whole number, got True"),
        (3.0, int, "it: expected a whole number, got 3.0"),
        ("3", int | None, "it: expected a whole number or null, got '3'"),
        (True, float, "it: expected a number, got True"),
        ("False", bool, "it: expected true or false, got 'False'"),
        (1, bool, "it: expected true or false, got 1"),
        (np.array([True, False]), bool, "it: expected true or false, got array([ True, False])"),
        (None, HOW, "it: expected one of mean, max, got None"),
        (["mean"], HOW, "it: expected one of mean, max, got ['mean']"),
        (datetime.date(2020, 1, 2), str, "it: expected text, got datetime.date(2020, 1, 2)"),
        ({"a": 1}, Config, "it: expected a Config, got {'a': 1}"),
    ],
    ids=str,
)
def test_anything_else_is_told(value: Any, kind: Any, told: str) -> None:
    assert refusal(as_type, value, kind, "it") == told


def test_a_configuration_made_in_python(tmp_path: Path) -> None:
    config = Config(
        run_dir=tmp_path / "run",
        model=BertConfig(hidden_size=np.int64(24), num_heads=2, dropout=np.float64(0.5)),
        data=DataConfig(path=tmp_path),
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config and config.run_dir == str(tmp_path / "run")
    for section, told in (
        (lambda: BertConfig(norm="both"), "model.norm: expected one of post, pre, got 'both'"),
        (lambda: OptimConfig(learning_rate="1e-3"), "optim.learning_rate: expected a number, got '1e-3'"),
        (lambda: MeshConfig(data=2.0), "mesh.data: expected a whole number, got 2.0"),
        (lambda: Config(data={}), "data: expected a DataConfig, got {}"),
    ):
        assert refusal(section) == told


def test_overrides_as_people_write_them() -> None:
    for overrides in ("train.steps=7", ["train.steps = 7"], ("--train.steps=7 ",)):
        assert load_config("tiny", overrides).train.steps == 7
    assert refusal(load_config, "tiny", {"train.steps": 7}) == "overrides: expected a Sequence, got {'train.steps': 7}"
    assert "override 7 is not of the form key=value" in refusal(load_config, "tiny", [7])
    assert refusal(load_config, None) == "recipe: expected text, got None"
