"""A run's folder: what it refuses, and what its files hold."""

import importlib.metadata
import json
import math

import jax
import pytest
from refusals import refusal

from bertjax.runs.folder import RunFolder

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


def test_what_it_was_made_with_is_read_back(run, prepared):
    assert run.config() == prepared.config
    assert run.tokenizer().to_json() == prepared.tokenizer.to_json()


def test_what_is_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        assert f"{path} is not a run's folder" in refusal(RunFolder(path).config)
    assert list(tmp_path.glob("none")) == []


# Its metrics.


def test_metrics_are_appended_and_cut_back(run):
    assert run.metrics.read() == []
    records = [{"step": step, "loss": 1 / step} for step in (1, 2, 2, 3)]
    for number, record in enumerate(records, 1):
        run.metrics.append(record)
        assert run.metrics.read() == records[:number]
    run.metrics.drop_after(2)
    assert run.metrics.read() == records[:3]
    run.metrics.drop_after(0)
    assert run.metrics.read() == [] and run.metrics.file.read_bytes() == b""


def test_numbers_that_json_cannot_carry_become_null(run):
    run.metrics.append({"step": 1, "loss": math.nan, "norm": math.inf, "low": -math.inf, "rate": 0.5})
    assert run.metrics.file.read_text() == '{"step": 1, "loss": null, "norm": null, "low": null, "rate": 0.5}\n'


def test_cutting_back_before_the_first_line(run):
    run.metrics.drop_after(0)
    assert run.metrics.read() == []


@pytest.mark.parametrize("last", ['{"step": 2, "lo', '{"step": 2', "{", "\0\0\0"])
def test_last_line_cut_short_by_a_kill_is_dropped(run, last):
    run.metrics.append({"step": 1, "loss": 0.5})
    with open(run.metrics.file, "a") as file:
        file.write(last)
    run.metrics.drop_after(1)
    run.metrics.append({"step": 2, "loss": 0.25})
    assert run.metrics.read() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


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
    assert run.decisions.last_step() is None and run.metrics.seconds_spent() == 0
    run.decisions.end_at(17)
    for step, seconds in ((5, 1.5), (10, 4.25)):
        run.metrics.append_timings({"step": step, "seconds_spent": seconds})
    run.metrics.append_timings({"step": 10, "pairs_per_second": 99.0})
    assert RunFolder(run.path).decisions.last_step() == 17 and RunFolder(run.path).metrics.seconds_spent() == 4.25
    for damaged in ("0", "{", "true", "1.5"):
        (run.path / "last_step.json").write_text(damaged)
        assert "last_step.json" in refusal(run.decisions.last_step)


def test_a_beginning_is_undone_where_it_is_no_more_than_that(run, prepared):
    mine = run.path / "notes.txt"
    mine.touch()
    run.undo_create()
    assert run.begun and mine.exists()
    mine.unlink()
    run.checkpoint_folder.mkdir()  # which a run makes before it has a checkpoint
    run.metrics.file.touch()
    run.lock_file.touch()  # held
    run.undo_create()
    assert list(run.path.iterdir()) == [run.lock_file]
    run.check_free()
    run.create(prepared)
    assert run.begun
