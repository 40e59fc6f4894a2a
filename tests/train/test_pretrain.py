"""Whole runs: what they leave behind, how they stop, and that going on equals never having stopped."""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from hub_server import Hub

import bertjax
from bertjax.cli.main import main
from bertjax.config import CheckpointConfig, Config, EvalConfig, MeshConfig, OnFailure, OptimConfig, TrainConfig
from bertjax.config.recipes import load_config, save_config
from bertjax.data.batching.batch import Batch
from bertjax.data.batching.batches import Batches
from bertjax.data.prepare import prepare
from bertjax.data.sources import python_docs
from bertjax.data.sources import wikitext as wikitext_room
from bertjax.data.statistics.cooccurrence import cooccurrence_embedding
from bertjax.data.statistics.frequencies import guessing_loss, label_counts, log_frequencies, word_counts
from bertjax.errors import BertjaxError, DivergedError, ExitCode
from bertjax.evaluation.evaluate import evaluate_run
from bertjax.hub.export import export_run
from bertjax.hub.folder import leaves
from bertjax.inference.pretrained import load
from bertjax.models.bert import Bert
from bertjax.objectives.pretraining import pretraining_objective
from bertjax.parallel.sharding import make_mesh, with_sharding
from bertjax.runs.folder import RunFolder
from bertjax.train import loop
from bertjax.train.budget import Budget
from bertjax.train.divergence import Skip
from bertjax.train.optimizer import make_optimizer
from bertjax.train.pretrain import pretrain, pretraining_task
from bertjax.train.state import saved_trees as trees_of
from bertjax.train.state import state_template


def saved_trees(folder: Path) -> list[np.ndarray]:
    """The leaves of the newest parameters and optimiser state."""
    run = RunFolder(folder)
    config = run.config()
    optimizer = make_optimizer(config.optim, config.train.steps)
    objective = pretraining_objective(Bert(config.model))
    template = state_template(objective, optimizer, averaging=config.optim.ema_decay is not None)
    template = with_sharding(template, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with run.checkpoints() as checkpoints:
        return jax.tree.leaves(checkpoints.restore(checkpoints.newest_step(), trees_of(template)))


def newest_step(folder: Path) -> int | None:
    with RunFolder(folder).checkpoints() as checkpoints:
        return checkpoints.latest_step()


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [("wikitext2", "word"), ("base", "wordpiece"), ("large", "wordpiece"), ("modern-base", "wordpiece")],
)
def test_the_recipes_train(recipe: str, kind: str, tiny: Config, devices: Callable) -> None:
    """Two steps of a small model that is the recipe's in all but its sizes."""
    devices(1)
    sizes = {
        "hidden_size": 16,
        "num_layers": 2 if recipe == "large" else 1,
        "num_heads": 2,
        "intermediate_size": 32,
        "vocab_size": "null",
    }
    shorter = {"train.steps": 2, "train.batch_size": 8, "train.log_every": 1, "optim.warmup_steps": 1, "eval.every": 0}
    shorter |= {"logging.report": False}
    where = {"run_dir": tiny.run_dir, "data.path": tiny.data.path, "data.cache": tiny.data.cache}
    where |= {"data.max_length": 24, "data.row_length": 48, "eval.max_length": "null"}  # so that 8 pairs fill some rows
    changes = {f"model.{name}": size for name, size in sizes.items()} | shorter | where
    file = Path(__file__).parents[2] / "configs" / f"{recipe}.yaml"
    config = bertjax.load_config(file, [f"{key}={value}" for key, value in changes.items()])
    run = RunFolder(pretrain(config))
    lines = [line for line in run.metrics.read() if "mlm_loss" in line]
    assert [line["skipped_steps"] for line in lines] == [0, 0] and run.tokenizer().rules.kind == kind


def assert_same_end(ours: Path, theirs: Path) -> None:
    """Parameters, optimiser state, counters and metrics, bit for bit."""
    for mine, yours in zip(saved_trees(ours), saved_trees(theirs), strict=True):
        np.testing.assert_array_equal(mine, yours)
    assert RunFolder(ours).metrics.file.read_bytes() == RunFolder(theirs).metrics.file.read_bytes()


def test_the_public_interface(tiny: Config, tmp_path: Path) -> None:
    save_config(tiny, tmp_path / "recipe.yaml")
    config = bertjax.load_config(tmp_path / "recipe.yaml", ["train.steps=3", "eval.every=2"])
    folder = bertjax.pretrain(config)
    assert bertjax.pretrain is pretrain  # the name still means the function after it was used
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "tokenizer.json", "metrics.jsonl", "loss.png", "checkpoints", "environment.json",
        "timings.jsonl", "lock", "special_tokens_map.json", "word_counts.npy",
    }  # fmt: skip
    lines = RunFolder(folder).metrics.read()
    assert [line["step"] for line in lines if "mlm_loss" in line] == [1, 2, 3]
    assert [line["step"] for line in lines if "held_out_mlm_loss" in line] == [2, 3]
    encoder = bertjax.Encoder.load(folder)
    assert encoder.encode_tokens(["the", "noun1"]).shape == (1, 4, 16)


def test_a_small_language_is_learnt(tiny: Config) -> None:
    config = dataclasses.replace(
        tiny,
        train=TrainConfig(steps=120, batch_size=32, log_every=40),
        model=dataclasses.replace(tiny.model, dropout=0),
    )
    held_out = RunFolder(pretrain(config)).metrics.read()[-1]
    vocabulary = RunFolder(config.run_dir).tokenizer().vocab_size - 5
    assert held_out["held_out_mlm_loss"] < 0.5 * np.log(vocabulary)


def test_the_chapter_recipe_learns(tiny: Config) -> None:
    """Its own steps and rates, on less text and by a smaller model, learn far more than word frequencies."""
    recipe = load_config("chapter")
    config = dataclasses.replace(
        recipe,
        run_dir=tiny.run_dir,
        data=dataclasses.replace(recipe.data, path=tiny.data.path, cache=tiny.data.cache, row_length=None),
        tokenizer=tiny.tokenizer,
        model=dataclasses.replace(recipe.model, hidden_size=32, num_layers=1, intermediate_size=32),
        train=dataclasses.replace(recipe.train, batch_size=32, gradient_accumulation_steps=1),
        eval=dataclasses.replace(recipe.eval, every=0),
    )
    held_out = RunFolder(pretrain(config)).metrics.read()[-1]
    prepared = prepare(config)
    size = prepared.tokenizer.vocab_size
    guessing = guessing_loss(
        word_counts(prepared.train, size),
        label_counts(prepared.held_out_batches.first_epoch(), size),
        prepared.tokenizer.vocabulary,
        predict_unk=True,
    )
    assert held_out["held_out_mlm_loss"] < 0.6 * guessing


@pytest.fixture
def counted(tiny: Config, two_devices: None) -> Config:
    """A run whose weights start from counts, on a mesh that splits them; its only step changes nothing."""
    changes = {"frequency_bias": True, "cooccurrence_embedding": True, "init_scale": 0.5, "vocab_size": 48}
    return dataclasses.replace(
        tiny,
        model=dataclasses.replace(tiny.model, **changes),
        optim=OptimConfig("adam", 1e-30),
        train=dataclasses.replace(tiny.train, steps=1),
        mesh=MeshConfig(data=1, fsdp=1, tensor=2),
    )


def fresh_and_initial(config: Config) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The parameters of a run before and after those it starts from are put in."""
    prepared, mesh = prepare(config), make_mesh(*config.mesh_sizes(2))
    task = pretraining_task(prepared, mesh)
    fresh = loop.make_programs(prepared.config, task.objective, mesh).init(config.seed)
    return dict(leaves(fresh.params)), dict(leaves(task.initial_state(fresh).params))


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_weights_that_start_from_counts(counted: Config, tie_word_embeddings: bool) -> None:
    model = dataclasses.replace(counted.model, tie_word_embeddings=tie_word_embeddings)
    fresh, initial = fresh_and_initial(dataclasses.replace(counted, model=model))
    prepared = prepare(counted)
    vocabulary, corpus = prepared.tokenizer.vocabulary, prepared.train
    bias_v = log_frequencies(corpus, vocabulary, 48, predict_unk=False)
    table_vd, known_v = cooccurrence_embedding(corpus, vocabulary, 48, 16, scale=0.5, seed=counted.seed)
    assert set(np.flatnonzero(~known_v)) == {*range(5), *range(vocabulary.size, 48)}
    expected = fresh | {"mlm/bias" if tie_word_embeddings else "mlm/vocab/bias": bias_v}
    expected["token_embedding"] = np.where(known_v[:, None], table_vd, fresh["token_embedding"])
    assert initial.keys() == expected.keys()
    for name, leaf in initial.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=0, atol=1e-20, err_msg=name)


def test_a_run_begins_with_weights_from_counts(counted: Config) -> None:
    fresh, initial = fresh_and_initial(counted)
    for name, leaf in leaves(load(pretrain(counted)).params):
        np.testing.assert_allclose(leaf, initial[name], rtol=0, atol=1e-20, err_msg=name)
        assert np.array_equal(fresh[name], initial[name]) == (name not in ("token_embedding", "mlm/bias"))


@pytest.mark.parametrize("stop", [2, 3])
def test_going_on_equals_never_having_stopped(tiny: Config, tmp_path: Path, stop: int) -> None:
    optim = OptimConfig("muon", schedule="cosine", warmup_steps=2, weight_decay=0.1, clip_norm=0.5, ema_decay=0.9)
    config = dataclasses.replace(
        tiny,
        optim=optim,
        model=dataclasses.replace(tiny.model, frequency_bias=True, cooccurrence_embedding=True),
        train=dataclasses.replace(tiny.train, steps=5, batch_warmup_steps=4),
        eval=EvalConfig(every=2),
        checkpoint=CheckpointConfig(every=1, keep=5),
    )
    whole = pretrain(config)
    killed = tmp_path / "killed"  # after its checkpoint of that step, in the middle of a line of metrics
    shutil.copytree(whole, killed)
    for step in range(stop + 1, 6):
        shutil.rmtree(killed / "checkpoints" / str(step))
    metrics = RunFolder(killed).metrics.file
    metrics.write_text(metrics.read_text()[:-20])
    pretrain(dataclasses.replace(config, run_dir=str(killed)), resume=True)
    assert_same_end(killed, whole)


def test_the_average_is_evaluated_encoded_with_exported_and_pushed(
    tiny: Config, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, biases=True))  # as what is exported has
    config = dataclasses.replace(tiny, optim=dataclasses.replace(tiny.optim, ema_decay=0.5))
    plain, run = (
        RunFolder(pretrain(tiny)),
        RunFolder(pretrain(dataclasses.replace(config, run_dir=str(tmp_path / "ema")))),
    )
    for ours, theirs in zip(run.metrics.read()[:4], plain.metrics.read()[:4], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)  # training goes on from the raw ones
    held_out = {name: value for name, value in run.metrics.read()[-1].items() if name != "step"}
    assert held_out != {name: plain.metrics.read()[-1][name] for name in held_out}
    means = evaluate_run(run.path).means
    assert {f"held_out_{name}": value for name, value in means.items()} == pytest.approx(held_out, rel=1e-6)
    averaged, raw = (load(folder.path).params["token_embedding"] for folder in (run, plain))
    assert 1e-4 < np.abs(averaged - raw).max() < 0.1
    export_run(run, tmp_path / "out")
    np.testing.assert_array_equal(load(tmp_path / "out").params["token_embedding"], averaged)
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    hub.writer = "Bearer hf_writes"
    assert main(["push", str(run.path), "org/mine", "--yes"]) == 0
    sent, card = hub.repositories["org/mine"], hub.repositories["org/mine"].pop("README.md").decode()
    assert card == (tmp_path / "out" / "README.md").read_text().replace("FOLDER", "org/mine") and "org/mine" in card
    assert sent == {name: (tmp_path / "out" / name).read_bytes() for name in sent}
    for content in (card.encode(), *sent.values()):  # places on this machine, such as those of text and cache
        assert str(tmp_path.parent).encode() not in content


class Clock:
    """Each look at it is a second after the last one."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return float(self.looks)


def test_a_run_with_a_budget_ends_in_it(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """And, resumed from before the decision, ends as it did, whatever the clock says."""
    clock = types.SimpleNamespace(monotonic=Clock())
    for module in ("loop", "run"):
        monkeypatch.setattr(f"bertjax.train.{module}.time", clock)
    monkeypatch.setattr("bertjax.train.loop.Budget", functools.partial(Budget, clock=Clock()))
    config = dataclasses.replace(
        tiny,
        optim=OptimConfig(learning_rate=1e-2, schedule="wsd", decay_share=0.3),
        train=dataclasses.replace(tiny.train, steps=10**9, budget="1m"),
        checkpoint=CheckpointConfig(every=5, keep=99),
    )
    run = RunFolder(pretrain(config))
    last = run.decisions.last_step()
    assert last is not None and 8 < last < 30 and run.metrics.read()[-1]["step"] == last
    out = capsys.readouterr().out
    said = re.search(rf"step (\d+): the learning rate falls from here on, to end at step {last} in time", out)
    left = re.findall(r"  (\S+) left\n", out)
    assert said and left and all(re.fullmatch(r"00:\d\d|01:00", time) for time in left)
    rates = [line["learning_rate"] for line in run.metrics.read() if "learning_rate" in line]
    falls = [earlier > later for earlier, later in itertools.pairwise(rates)]
    assert falls == sorted(falls) and sum(falls) == round(0.3 * last) - 1
    assert last - sum(falls) >= int(said[1]) and rates[-1] < 0.4 * rates[0]
    assert 20 < run.metrics.seconds_spent() < 60
    killed = tmp_path / "killed"
    shutil.copytree(run.path, killed)
    for path in killed.glob("checkpoints/*"):
        if int(path.name) > 5:
            shutil.rmtree(path)
    pretrain(dataclasses.replace(config, run_dir=str(killed)), resume=True)
    assert_same_end(killed, run.path)
    assert "falls from here on" not in capsys.readouterr().out


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_run_goes_on_from_the_newest_sound_checkpoint(tiny: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny, checkpoint=CheckpointConfig(every=1, keep=4))
    whole = pretrain(config)
    hurt = tmp_path / "hurt"
    shutil.copytree(whole, hurt)
    shutil.rmtree(hurt / "checkpoints" / "4")
    largest = max((hurt / "checkpoints" / "3" / "params").rglob("d/*"), key=lambda file: file.stat().st_size)
    flip_a_byte(largest)
    with pytest.warns(UserWarning, match=r"3 is damaged \(params/.* holds other bytes than were written\); 2 is used"):
        bertjax.Encoder.load(hurt)
    assert (hurt / "checkpoints" / "3").is_dir()
    with pytest.warns(UserWarning, match="3 is damaged .* and set aside as damaged-3; 2 is used instead"):
        pretrain(dataclasses.replace(config, run_dir=str(hurt)), resume=True)
    assert sorted(path.name for path in (hurt / "checkpoints").iterdir()) == ["1", "2", "3", "4", "damaged-3"]
    assert_same_end(hurt, whole)
    for step in (1, 2, 3, 4):
        flip_a_byte(hurt / "checkpoints" / str(step) / "manifest.json")
    with pytest.raises(BertjaxError, match="4 is damaged .* all 4 of them are; train anew"):
        bertjax.Encoder.load(hurt)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk; no_room in test_checkpoint.py stands for it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_a_full_disk(tiny: Config, small_disk: Path, monkeypatch: pytest.MonkeyPatch, on_failure: OnFailure) -> None:
    def evaluate_as_the_disk_fills(*_: object) -> dict[str, float]:  # before the checkpoint of the same step
        step = next(steps)
        if step == 2:
            while not (small_disk / "run" / "checkpoints" / "1").exists():  # it is written in the background
                time.sleep(0.01)
            fill(small_disk)
        if step == 4:
            (small_disk / "ballast").unlink()
        return dict.fromkeys(["mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"], 0.5)

    steps = itertools.count(1)
    monkeypatch.setattr("bertjax.train.loop.evaluate", evaluate_as_the_disk_fills)
    saves = CheckpointConfig(every=1, keep=1, on_failure=on_failure)
    config = dataclasses.replace(tiny, run_dir=str(small_disk / "run"), eval=EvalConfig(every=1), checkpoint=saves)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if on_failure == "continue":
            pretrain(config)
            said = "\n".join(str(warning.message) for warning in warned)
            assert re.search(r"/2 \(.*No space left on device\) and checkpoint 1 stays the newest", said)
        else:
            with pytest.raises(BertjaxError, match="cannot .*No space left on device") as error:
                pretrain(config)
            assert error.value.exit_code == ExitCode.DISK_FULL
            assert "\n" not in str(error.value) and newest_step(Path(config.run_dir)) == 1
            (small_disk / "ballast").unlink()
            steps = itertools.count(5)
            pretrain(config, resume=True)
    lines = RunFolder(config.run_dir).metrics.read()
    assert [line["step"] for line in lines] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [path.name for path in (small_disk / "run" / "checkpoints").iterdir()] == ["4"]


def test_a_folder_that_is_removed_stops_the_run(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate_as_the_folder_goes(*_: object) -> dict[str, float]:
        shutil.rmtree(tiny.run_dir)
        return dict.fromkeys(["mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"], 0.5)

    monkeypatch.setattr("bertjax.train.loop.evaluate", evaluate_as_the_folder_goes)
    with pytest.raises(BertjaxError, match="cannot write to .*metrics.jsonl: No such file or directory"):
        pretrain(tiny)
    going_on = dataclasses.replace(tiny, checkpoint=CheckpointConfig(on_failure="continue"))
    with (
        pytest.warns(UserWarning, match="metrics.jsonl: No such file or directory; its lines are kept"),
        pytest.warns(UserWarning, match="cannot save checkpoint"),
        pytest.raises(BertjaxError, match="cannot save checkpoint .*/4 .*No such file or directory.* none yet"),
    ):
        pretrain(going_on)
    assert not Path(tiny.run_dir).exists()


class Killed(BaseException):
    """What no room may catch."""


@pytest.fixture
def on_call(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`on_call(do, "room.function", number)` calls `do` first, in the call of that number, until the block's end."""

    @contextlib.contextmanager
    def hooked(do: Callable[[], None], target: str, number: int = 1, last: str = "") -> Iterator[None]:
        """Calls count whose last argument ends like `last`."""
        original, calls = pkgutil.resolve_name(target), itertools.count(1)

        def function(*args, **settings):
            if str(args[-1] if args else "").endswith(last) and next(calls) == number:
                do()
            return original(*args, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(target, function)
            yield
            assert next(calls) > number, f"{target} was not called {number} times"

    return hooked


def die() -> None:
    raise Killed


@pytest.fixture
def eventful(tiny: Config) -> Config:
    """Dropout and packing on; 6 steps, an evaluation and a checkpoint after every second."""
    return dataclasses.replace(
        tiny,
        data=dataclasses.replace(tiny.data, row_length=48),
        train=dataclasses.replace(tiny.train, steps=6),
        eval=EvalConfig(every=2),
        checkpoint=CheckpointConfig(every=2),
    )


def test_killed_in_every_window_it_ends_as_if_it_had_not_been(
    eventful: Config, tmp_path: Path, on_call: Callable
) -> None:
    whole = pretrain(dataclasses.replace(eventful, run_dir=str(tmp_path / "whole")))
    shutil.rmtree(tmp_path / "cache")
    folder = RunFolder(eventful.run_dir)
    save, plot = "bertjax.runs.checkpoint_writer.CheckpointWriter.save", "bertjax.train.run.plot_losses"
    for window in (
        ("bertjax.data.tokenizer.tokenizer.Tokenizer.train",),  # there is no folder yet
        ("os.replace", 1, "config.yaml"),  # the folder is half made
        ("bertjax.train.loop.place_rows",),  # no step is made
        (save,),  # the evaluation's line is written, its checkpoint is not
        ("bertjax.train.loop.place_rows", 3),  # step 3, with its checkpoint written in the background
        ("os.replace", 1, "config.yaml"),  # written anew, as on each resume
        ("os.replace", 1, "metrics.jsonl"),  # cut back
        ("bertjax.train.loop.evaluate",),  # after step 4
        (save,),
        ("bertjax.train.progress.Progress.step_done", 4),  # step 6
        (plot,),
    ):
        with on_call(die, *window), pytest.raises(Killed):
            pretrain(eventful, resume=True)
    assert not folder.loss_plot.exists()
    pretrain(eventful, resume=True)
    assert folder.loss_plot.exists()
    assert_same_end(folder.path, whole)


def test_signals_stop_it_and_it_ends_as_if_they_had_not(
    eventful: Config, tmp_path: Path, on_call: Callable, capfd: pytest.CaptureFixture
) -> None:
    whole = pretrain(dataclasses.replace(eventful, run_dir=str(tmp_path / "whole")))
    shutil.rmtree(tmp_path / "cache")
    folder = RunFolder(eventful.run_dir)

    def stops(number: int, *target: object, after: int | None) -> None:
        capfd.readouterr()
        with on_call(functools.partial(os.kill, os.getpid(), number), *target), pytest.raises(SystemExit) as left:
            pretrain(eventful, resume=True)
        assert left.value.code == ExitCode.STOPPED
        out = capfd.readouterr().out
        if after is None:
            assert "stopped after" not in out
        else:
            assert f"stopped after step {after}, saved; go on with\n  bertjax pretrain --config {folder.path}" in out
            with folder.checkpoints() as checkpoints:
                assert checkpoints.latest_step() == after == folder.metrics.read()[-1]["step"]

    stops(signal.SIGTERM, "bertjax.data.corpus.corpus.join", after=None)
    stops(signal.SIGUSR1, "bertjax.train.loop.place_rows", after=1)
    stops(signal.SIGTERM, "bertjax.train.loop.evaluate", after=2)
    assert not folder.metrics.has_evaluation(2)
    stops(signal.SIGUSR1, "bertjax.train.loop.evaluate", after=2)  # made up for, and stopped again
    stops(signal.SIGTERM, "bertjax.runs.checkpoint_writer.CheckpointWriter.save", after=5)  # of step 4
    stops(signal.SIGTERM, "bertjax.train.loop.evaluate", after=6)  # all steps are made, and yet something is missing
    pretrain(eventful, resume=True)
    assert_same_end(folder.path, whole)


def test_bad_steps_end_the_run_and_a_resume_counts_on(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(
        tiny,
        train=dataclasses.replace(tiny.train, steps=20, max_bad_steps=3),
        checkpoint=CheckpointConfig(every=2),
    )
    batch_at = Batches.batch_at

    def going_bad(self: Batches, number: int, rows: range | None = None) -> Batch:
        batch = batch_at(self, number, rows)
        weight = np.float32(np.nan if number in (1, 3, 4, 5) else 1)
        return batch._replace(mlm_weights_bp=batch.mlm_weights_bp * weight)

    monkeypatch.setattr(Batches, "batch_at", going_bad)
    lines = []
    for resume in (False, True):
        with pytest.raises(DivergedError, match="step 6 is number 3 in a row .* the largest parameters are "):
            pretrain(config, resume=resume)
        folder = RunFolder(config.run_dir)
        with folder.checkpoints() as checkpoints:
            assert checkpoints.latest_step() == 4
        lines.append(folder.metrics.file.read_text())
    assert lines[0] == lines[1]
    assert [line["mlm_loss"] is None for line in folder.metrics.read()] == [False, True, False, True, True, True]
    assert [line["skipped_steps"] for line in folder.metrics.read()] == [0, 1, 1, 2, 3, 4]
    encoder = bertjax.Encoder.load(folder.path)
    assert np.isfinite(encoder.encode_tokens(["the", "noun1"])).all()


def spiking(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> list[int]:
    """Makes batches of these numbers spike; the list grows by the batches that are learnt from."""
    batch_at, taken = Batches.batch_at, []

    def learnt(self: Batches, number: int, rows: range | None = None) -> Batch:
        taken.append(number)
        batch = batch_at(self, number, rows)
        return batch._replace(mlm_labels_bp=0 * batch.mlm_labels_bp) if number in numbers else batch

    monkeypatch.setattr(Batches, "batch_at", learnt)
    return taken


@pytest.fixture
def careful(tiny: Config) -> Config:
    """8 steps, a checkpoint after every third, and a loss 5% above the recent is a spike."""
    return dataclasses.replace(
        tiny,
        train=dataclasses.replace(tiny.train, steps=8, spike_factor=1.05),
        checkpoint=CheckpointConfig(every=3),
        eval=EvalConfig(every=2),
    )


def test_a_spike_goes_back_and_leaves_its_batches_out(
    careful: Config, tmp_path: Path, on_call: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = spiking(monkeypatch, 4)
    whole = RunFolder(pretrain(dataclasses.replace(careful, run_dir=str(tmp_path / "whole"))))
    assert taken == [*range(5), 5, *range(5, 10)]  # batch 5 was under way when the loss of batch 4 was read
    assert whole.decisions.skips() == [Skip(3, 2)]
    assert [line["step"] for line in whole.metrics.read() if "mlm_loss" in line] == list(range(1, 9))
    for window in (
        ("bertjax.runs.decisions.Decisions.add_skip",),  # the spike is seen and no more
        ("os.replace", 1, "skipped.json"),
        ("bertjax.train.loop._newest", 2),  # the skip is noted, the metrics are not cut back yet
        ("bertjax.train.loop.place_rows", 4),  # on the new way
    ):
        with on_call(die, *window), pytest.raises(Killed):
            pretrain(careful, resume=True)
    pretrain(careful, resume=True)
    assert_same_end(Path(careful.run_dir), whole.path)
    assert RunFolder(careful.run_dir).decisions.skips() == whole.decisions.skips()


def test_a_run_that_only_spikes_ends(careful: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    spiking(monkeypatch, *range(3, 100))
    with pytest.raises(DivergedError, match="has gone back to step 3 3 times and left batches out"):
        pretrain(careful)
    with pytest.raises(DivergedError, match="has gone back to step 3 3 times and left batches out"):
        pretrain(careful, resume=True)
    assert len(RunFolder(careful.run_dir).decisions.skips()) == 3


def test_two_runs_on_one_folder(tiny: Config, on_call: Callable) -> None:
    def another() -> None:
        for resume in (False, True):
            message = f"in use by process {os.getpid()} on " if resume else "exists and is left as it is; go on"
            with pytest.raises(BertjaxError, match=message):
                pretrain(tiny, resume=resume)

    with on_call(another, "bertjax.train.loop.place_rows"):
        folder = pretrain(tiny)
    assert len(RunFolder(folder).metrics.read()) == 5


def test_a_run_goes_on_only_as_the_same_run(tiny: Config, wikitext: Path, tmp_path: Path) -> None:
    folder = pretrain(tiny)
    shorter = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, steps=3))
    with pytest.raises(BertjaxError, match="has made 4 steps, more than train.steps=3; give as many or more"):
        pretrain(shorter, resume=True)
    longer = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, steps=6))
    falling = dataclasses.replace(longer, optim=dataclasses.replace(tiny.optim, schedule="linear"))
    with pytest.raises(BertjaxError, match=r"optim.schedule=linear .*, train.steps=6 \(the run has 4\)"):
        pretrain(falling, resume=True)
    with pytest.raises(BertjaxError, match=r"another configuration: seed=1 \(the run has 0\)"):
        pretrain(dataclasses.replace(longer, seed=1), resume=True)
    (tmp_path / "wiki.train.tokens").write_text("a b . c d . e f . \n" * 20)
    (tmp_path / "wiki.valid.tokens").write_text((wikitext / "wiki.valid.tokens").read_text())
    elsewhere = dataclasses.replace(longer, data=dataclasses.replace(tiny.data, path=str(tmp_path)))
    with pytest.raises(BertjaxError, match="made with another text"):
        pretrain(elsewhere, resume=True)
    assert pretrain(longer, resume=True) == folder
    assert RunFolder(folder).config().train.steps == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": TrainConfig(batch_size=4096)}, "180 pairs .* fewer than train.batch_size=4096"),
        ({"run_dir": "/proc/nowhere/run"}, "cannot write to /proc/nowhere.*--run_dir"),
    ],
)
def test_what_is_refused_leaves_no_folder(tiny: Config, change: dict, message: str) -> None:
    config = dataclasses.replace(tiny, **change)
    with pytest.raises(BertjaxError, match=message) as error:
        pretrain(config)
    assert "\n" not in str(error.value)
    assert not Path(config.run_dir).exists()


def test_only_a_run_or_nothing_is_resumed(tiny: Config) -> None:
    folder = Path(tiny.run_dir)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BertjaxError, match="exists and is left as it is; without a config.yaml it is no run"):
        pretrain(tiny, resume=True)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_the_fallback_is_said_and_recorded(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (stdlib := tmp_path / "stdlib").mkdir()
    for number in range(40):  # of which some are held out
        words = " and ".join(f"noun{number % 7 + i}" for i in range(4))
        (stdlib / f"m{number}.py").write_text(f'"""They see {words}. They are near {number}. Nobody knows why."""')
    documents = functools.partial(python_docs.documents, stdlib=stdlib)
    monkeypatch.setattr(python_docs, "documents", documents)
    monkeypatch.setattr(wikitext_room, "download", functools.partial(wikitext_room.download, mirrors=()))
    monkeypatch.delenv("BERTJAX_DATA", raising=False)
    data = dataclasses.replace(tiny.data, path=None)
    with pytest.raises(BertjaxError, match="set data.fallback: python-docs"):
        pretrain(dataclasses.replace(tiny, data=data))
    config = dataclasses.replace(
        tiny, data=dataclasses.replace(data, fallback="python-docs"), checkpoint=CheckpointConfig(every=2)
    )
    folder = pretrain(config)
    out = capsys.readouterr().out
    assert "NOTICE:   python-docs is read instead of what was asked for, because\n          WikiText-2" in out
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["corpus"]["source"] == "python-docs" and environment["corpus"]["fallback_because"]
    assert RunFolder(folder).config().data.source == "python-docs"
    pretrain(dataclasses.replace(config, train=dataclasses.replace(config.train, steps=5)), resume=True)


@pytest.mark.parametrize("mesh", [(1, 4, 2), (2, 1, 1)], ids=["sharded", "rows"])
def test_a_run_goes_on_upon_another_mesh(
    tiny: Config, tmp_path: Path, devices: Callable[[int], None], mesh: tuple[int, int, int]
) -> None:
    config = dataclasses.replace(
        tiny,
        data=dataclasses.replace(tiny.data, row_length=32),
        checkpoint=CheckpointConfig(every=2),
        eval=EvalConfig(every=2),
    )
    whole, moved = pretrain(config), tmp_path / "moved"
    shutil.copytree(whole, moved)
    shutil.rmtree(moved / "checkpoints" / "4")
    devices(math.prod(mesh))
    pretrain(dataclasses.replace(config, run_dir=str(moved), mesh=MeshConfig(*mesh)), resume=True)
    for ours, theirs in zip(RunFolder(moved).metrics.read(), RunFolder(whole).metrics.read(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert RunFolder(moved).config().mesh == MeshConfig(*mesh)
    for ours, theirs in zip(saved_trees(moved), saved_trees(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_ctrl_c_saves_and_says_how_to_go_on(tiny: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny, train=TrainConfig(steps=100_000, batch_size=8, log_every=1))
    save_config(config, tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "bertjax", "pretrain", "--config", str(tmp_path / "recipe.yaml")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    run, deadline = RunFolder(config.run_dir), time.monotonic() + 120
    while len(run.metrics.read()) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "stopping after this step" in err
    with run.checkpoints() as checkpoints:
        step = checkpoints.newest_step()
    assert f"stopped after step {step}, saved; go on with" in out
    assert step == run.metrics.read()[-1]["step"]
    (resume,) = [line.split() for line in out.splitlines() if line.startswith("  bertjax pretrain")]
    # The command as it was printed, once the run has an end that a test can wait for.
    near = dataclasses.replace(run.config(), train=dataclasses.replace(config.train, steps=step + 2))
    save_config(near, run.path / "config.yaml")
    done = subprocess.run([sys.executable, "-m", *resume], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in run.metrics.read() if "mlm_loss" in line] == list(range(1, step + 3))
