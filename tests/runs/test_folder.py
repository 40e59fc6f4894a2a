"""A run's folder: what it refuses, and what its files hold."""

import dataclasses
import importlib.metadata
import json
import math
from typing import Any

import jax
import pytest

from bertjax.config import Config
from bertjax.data.prepare import Prepared, prepare
from bertjax.errors import BertjaxError
from bertjax.runs.folder import RunFolder


@pytest.fixture
def prepared(tiny: Config) -> Prepared:
    return prepare(tiny)


@pytest.fixture
def run(prepared: Prepared) -> RunFolder:
    folder = RunFolder(prepared.config.run_dir)
    folder.create(prepared)
    return folder


def changed(config: Config, key: str, value: Any) -> Config:
    """The configuration with another value at a dotted key."""
    part, _, name = key.rpartition(".")
    if not part:
        return dataclasses.replace(config, **{name: value})
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{name: value})})


def refusal(call, *args) -> str:
    with pytest.raises(BertjaxError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Is the folder free?


def test_missing_and_empty_folders_are_free(tmp_path):
    RunFolder(tmp_path / "no" / "such").check_free()
    assert list(tmp_path.iterdir()) == []
    RunFolder(tmp_path).check_free()


@pytest.mark.parametrize("kind", ["folder", "hidden file in it", "file"])
def test_whatever_is_there_is_left_as_it_is(tmp_path, kind):
    path = tmp_path / "run"
    if kind != "file":
        path.mkdir()
    inside = {"folder": path / "something", "hidden file in it": path / ".hidden", "file": path}[kind]
    inside.write_text("mine")
    message = refusal(RunFolder(path).check_free)
    assert str(path) in message and "--run_dir" in message and ("--resume" in message) == (kind != "file")
    assert inside.read_text() == "mine" and len(list(tmp_path.rglob("*"))) == 1 + (kind != "file")


@pytest.mark.parametrize("where", ["file", "file/run"])
def test_a_folder_that_cannot_be_made(tmp_path, prepared, where):
    (tmp_path / "file").write_text("mine")
    message = refusal(RunFolder(tmp_path / where).create, prepared)
    assert "cannot write to" in message and str(tmp_path / where) in message and "--run_dir" in message


# Can it be resumed?


def test_same_configuration_and_text_are_the_same_run(run, prepared):
    run.check_same(prepared)
    assert run.config() == prepared.config
    assert run.tokenizer().to_json() == prepared.tokenizer.to_json()


@pytest.mark.parametrize(
    "key, value, shown",
    [
        ("seed", 1, "seed=1 (the run has 0)"),
        ("model.dropout", 0.2, "model.dropout=0.2 (the run has 0.1)"),
        ("model.vocab_size", 99, "model.vocab_size=99 (the run has 17)"),
        ("optim.learning_rate", 3e-4, "optim.learning_rate=0.0003 (the run has 0.01)"),
        ("optim.clip_norm", 1.0, "optim.clip_norm=1.0 (the run has None)"),
        ("train.batch_size", 16, "train.batch_size=16 (the run has 8)"),
        ("data.source", "python-docs", "data.source=python-docs (the run has wikitext-2)"),
        ("data.mlm_probability", 0.3, "data.mlm_probability=0.3 (the run has 0.15)"),
        ("data.predict_unk", True, "data.predict_unk=True (the run has False)"),
        ("tokenizer.min_frequency", 2, "tokenizer.min_frequency=2 (the run has 1)"),
    ],
)
def test_another_configuration_is_another_run(run, prepared, key, value, shown):
    message = refusal(run.check_same, prepared._replace(config=changed(prepared.config, key, value)))
    assert str(run.path) in message and shown in message


def test_every_changed_key_is_named(run, prepared):
    both = changed(changed(prepared.config, "seed", 1), "train.gradient_accumulation_steps", 2)
    message = refusal(run.check_same, prepared._replace(config=both))
    assert "seed=1" in message and "train.gradient_accumulation_steps=2" in message and "train.steps" not in message


@pytest.mark.parametrize(
    "key, value",
    [
        ("run_dir", "moved"),
        ("train.steps", 40),
        ("train.log_every", 7),
        ("data.path", None),
        ("data.cache", "elsewhere"),
        ("data.fallback", "python-docs"),
        ("eval.every", 3),
        ("checkpoint.every", 3),
        ("checkpoint.keep", 9),
        ("mesh.data", 2),
        ("mesh.fsdp", 4),
        ("mesh.tensor", 2),
    ],
)
def test_what_changes_no_step_may_change(run, prepared, key, value):
    run.check_same(prepared._replace(config=changed(prepared.config, key, value)))


@pytest.mark.parametrize("key, value", [("optim.schedule", "cosine"), ("data.mlm_probability_end", 0.3)])
def test_what_falls_or_rises_towards_the_last_step_fixes_it(tmp_path, prepared, key, value):
    config = changed(changed(prepared.config, key, value), "run_dir", str(tmp_path / "other"))
    run = RunFolder(config.run_dir)
    run.create(prepared._replace(config=config))
    assert "train.steps=40 (the run has 4)" in refusal(
        run.check_same, prepared._replace(config=changed(config, "train.steps", 40))
    )


def test_another_text_is_another_run(run, prepared):
    other = prepared._replace(train=prepared.train._replace(digest=prepared.held_out.digest))
    message = refusal(run.check_same, other)
    assert "another text than the wikitext-2/train" in message and str(run.path) in message


def test_what_is_no_run(tmp_path, prepared):
    for path in (tmp_path, tmp_path / "none"):
        assert f"{path} is not a run's folder" in refusal(RunFolder(path).config)
        assert "config.yaml" in refusal(RunFolder(path).check_same, prepared)
    assert list(tmp_path.glob("none")) == []


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_damaged_environment_is_an_error_of_one_line(run, prepared, damage):
    file = run.path / "environment.json"
    text = file.read_text()
    file.unlink() if damage == "missing" else file.write_text(text[:40])
    assert "environment.json" in refusal(run.check_same, prepared)


# Its metrics.


def test_metrics_are_appended_and_cut_back(run):
    assert run.metrics() == []
    records = [{"step": step, "loss": 1 / step} for step in (1, 2, 2, 3)]
    for number, record in enumerate(records, 1):
        run.append_metrics(record)
        assert run.metrics() == records[:number]
    run.drop_metrics_after(2)
    assert run.metrics() == records[:3]
    run.drop_metrics_after(0)
    assert run.metrics() == [] and run.metrics_file.read_bytes() == b""


def test_numbers_that_json_cannot_carry_become_null(run):
    run.append_metrics({"step": 1, "loss": math.nan, "norm": math.inf, "low": -math.inf, "rate": 0.5})
    assert run.metrics_file.read_text() == '{"step": 1, "loss": null, "norm": null, "low": null, "rate": 0.5}\n'


def test_cutting_back_before_the_first_line(run):
    run.drop_metrics_after(0)
    assert run.metrics() == []


@pytest.mark.parametrize("last", ['{"step": 2, "lo', '{"step": 2', "{", "\0\0\0"])
def test_last_line_cut_short_by_a_kill_is_dropped(run, last):
    run.append_metrics({"step": 1, "loss": 0.5})
    with open(run.metrics_file, "a") as file:
        file.write(last)
    run.drop_metrics_after(1)
    run.append_metrics({"step": 2, "loss": 0.25})
    assert run.metrics() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


# Its environment.


def test_environment(run, prepared):
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["packages"]["jax"] == jax.__version__
    assert environment["packages"]["bertjax"] == importlib.metadata.version("bertjax")
    assert len(environment["devices"]) == len(jax.devices()) and "cpu" in environment["devices"][0]
    corpus = environment["corpus"]
    assert (corpus["source"], corpus["fallback_because"]) == ("wikitext-2", None)
    for part, of in ((corpus["train"], prepared.train), (corpus["held_out"], prepared.held_out)):
        assert part == {"name": of.name, "digest": of.digest, "tokens": len(of.ids)}
    assert corpus["train"]["tokens"] == 60 * 4 * 7 + 60  # the last sentence of a paragraph keeps its full stop


def test_environment_says_why_the_fallback_was_taken(tmp_path, prepared):
    folder = RunFolder(tmp_path / "fallen back")
    folder.create(prepared._replace(instead_of="no network"))
    assert json.loads((folder.path / "environment.json").read_text())["corpus"]["fallback_because"] == "no network"


def test_where_a_run_with_a_budget_ends(run):
    assert run.last_step() is None and run.seconds_spent() == 0
    run.end_at(17)
    for step, seconds in ((5, 1.5), (10, 4.25)):
        run.append_timings({"step": step, "seconds_spent": seconds})
    run.append_timings({"step": 10, "pairs_per_second": 99.0})
    assert RunFolder(run.path).last_step() == 17 and RunFolder(run.path).seconds_spent() == 4.25
    for damaged in ("0", "{", "true", "1.5"):
        (run.path / "last_step.json").write_text(damaged)
        assert "last_step.json" in refusal(run.last_step)
