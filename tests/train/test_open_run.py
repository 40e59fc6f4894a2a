"""What a run may be resumed with."""

import dataclasses
from typing import Any

import pytest
from refusals import refusal

from bertjax.config import Config
from bertjax.config.recipes import load_config
from bertjax.runs.folder import RunFolder
from bertjax.train.open_run import check_same, may_go_further


def changed(config: Config, key: str, value: Any) -> Config:
    """The configuration with another value at a dotted key."""
    part, _, name = key.rpartition(".")
    if not part:
        return dataclasses.replace(config, **{name: value})
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{name: value})})


def test_same_configuration_and_text_are_the_same_run(run, prepared):
    check_same(run, run.config(), prepared)


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
    message = refusal(check_same, run, run.config(), prepared._replace(config=changed(prepared.config, key, value)))
    assert str(run.path) in message and shown in message


def test_every_changed_key_is_named(run, prepared):
    both = changed(changed(prepared.config, "seed", 1), "train.gradient_accumulation_steps", 2)
    message = refusal(check_same, run, run.config(), prepared._replace(config=both))
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
        ("model.attention", "xla"),
    ],
)
def test_what_changes_no_step_may_change(run, prepared, key, value):
    check_same(run, run.config(), prepared._replace(config=changed(prepared.config, key, value)))


@pytest.mark.parametrize("key, value", [("optim.schedule", "cosine"), ("data.mlm_probability_end", 0.3)])
def test_what_falls_or_rises_towards_the_last_step_fixes_it(tmp_path, prepared, key, value):
    config = changed(changed(prepared.config, key, value), "run_dir", str(tmp_path / "other"))
    run = RunFolder(config.run_dir)
    run.create(prepared._replace(config=config))
    assert "train.steps=40 (the run has 4)" in refusal(
        check_same, run, run.config(), prepared._replace(config=changed(config, "train.steps", 40))
    )


def test_another_text_is_another_run(run, prepared):
    other = prepared._replace(train=prepared.train._replace(digest=prepared.held_out.digest))
    message = refusal(check_same, run, run.config(), other)
    assert "another text than the wikitext-2/train" in message and str(run.path) in message


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_damaged_environment_is_an_error_of_one_line(run, prepared, damage):
    file = run.path / "environment.json"
    text = file.read_text()
    file.unlink() if damage == "missing" else file.write_text(text[:40])
    assert "environment.json" in refusal(check_same, run, run.config(), prepared)


@pytest.mark.parametrize(
    ("override", "further"),
    [("train.steps=7", True), ("optim.schedule=wsd", False), ("data.mlm_probability_end=0.1", False)],
)
def test_a_run_may_go_further_where_nothing_depends_on_its_last_step(override: str, further: bool) -> None:
    assert may_go_further(load_config("textbook", [override])) == further
