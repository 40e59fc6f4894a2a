"""Whole runs: what they learn and leave behind."""

import dataclasses
import functools
import itertools
import json
import re
import shutil
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ended_runs import assert_same_end
from hub_server import Hub

import bertjax
from bertjax.cli.main import main
from bertjax.config import CheckpointConfig, Config, MeshConfig, OptimConfig, TrainConfig
from bertjax.config.recipes import load_config, save_config
from bertjax.data.prepare import prepare
from bertjax.data.sources import python_docs
from bertjax.data.sources import wikitext as wikitext_room
from bertjax.data.statistics.cooccurrence import cooccurrence_embedding
from bertjax.data.statistics.frequencies import guessing_loss, label_counts, log_frequencies, word_counts
from bertjax.errors import BertjaxError
from bertjax.evaluation.evaluate import evaluate_run
from bertjax.hub.export import export_run
from bertjax.hub.folder import leaves
from bertjax.inference.pretrained import load
from bertjax.parallel.sharding import make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.train import loop
from bertjax.train.budget import Budget
from bertjax.train.pretrain import pretrain, pretraining_task


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
