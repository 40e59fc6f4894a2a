"""Trained folders of both kinds, and runs that start from one: its weights, its vocabulary, its special tokens."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from hub_server import COMMIT, Hub
from huggingface_hub import constants
from odd_bert import MODEL, ODD, write_odd_bert
from refusals import refusal
from safetensors.numpy import load_file, save_file

from bertjax.cli.main import main
from bertjax.config import CheckpointConfig, Config, EvalConfig, MeshConfig, OptimConfig, TokenizerConfig
from bertjax.config.recipes import load_config
from bertjax.data.prepare import prepare
from bertjax.errors import BertjaxError
from bertjax.hub.export import export_run
from bertjax.inference.classifier import Classifier
from bertjax.inference.encoder import Encoder
from bertjax.inference.matcher import Matcher
from bertjax.inference.pretrained import load, model_config
from bertjax.inference.tagger import Tagger
from bertjax.models.bert import Bert, init_params
from bertjax.parallel.process_group import SingleProcess
from bertjax.parallel.sharding import by_name, make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.train.open_run import open_run, with_model_of_init
from bertjax.train.pretrain import pretrain


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_odd_bert(tmp_path_factory.mktemp("hub") / "theirs")


def held_out(run: Path) -> dict[str, float]:
    line = [line for line in RunFolder(run).metrics.read() if "held_out_mlm_loss" in line][-1]
    return {key: value for key, value in line.items() if key.startswith("held_out")}


def standing_still(config: Config, folder: Path, source: Path) -> Config:
    """A run from there whose only step changes nothing."""
    train = dataclasses.replace(config.train, steps=1)
    return dataclasses.replace(
        config, run_dir=str(folder), init_from=str(source), optim=OptimConfig("adam", 1e-30), train=train
    )


def assert_equal_params(ours: Path, theirs: Path) -> None:
    jax.tree.map(np.testing.assert_array_equal, load(ours).params, load(theirs).params)


# Where each parameter lies.


def test_each_device_has_its_share(theirs: Path, devices: Callable[[int], None]) -> None:
    devices(4)
    mesh = make_mesh(1, 2, 2)
    here, there = load(theirs), load(theirs, mesh)
    assert here.config == there.config == model_config(theirs) == MODEL
    for one, other, sharding in zip(
        *map(jax.tree.leaves, (here.params, there.params, by_name(here.params, mesh))), strict=True
    ):
        assert other.sharding == sharding
        np.testing.assert_array_equal(one, other)


# Vocabularies that are read.


def test_a_vocabulary_that_is_read(tiny: Config, theirs: Path) -> None:
    tokenizer = TokenizerConfig(min_frequency=99, path=str(theirs / "tokenizer.json"))
    run = RunFolder(pretrain(dataclasses.replace(tiny, tokenizer=tokenizer)))
    ours, read = run.tokenizer(), load(theirs).tokenizer
    assert (ours.rules, ours.vocabulary) == (read.rules, read.vocabulary) and read.vocabulary[:6] == (
        24,
        2,
        23,
        8,
        1,
        7,
    )
    config = run.config()
    assert config.tokenizer == TokenizerConfig("wordpiece", strip_accents=True, path=str(theirs / "tokenizer.json"))
    assert config.model == dataclasses.replace(tiny.model, vocab_size=24)
    assert json.loads((run.path / "special_tokens_map.json").read_text())["mask_token"] == "<?>"
    more = dataclasses.replace(tiny, tokenizer=tokenizer, train=dataclasses.replace(tiny.train, steps=5))
    pretrain(more, resume=True)
    own = dataclasses.replace(tiny, run_dir=f"{run.path}-own", tokenizer=TokenizerConfig(path=str(run.path)))
    assert RunFolder(pretrain(own)).tokenizer().to_json() == run.tokenizer().to_json()


def test_where_there_is_no_vocabulary(tiny: Config, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        with pytest.raises(BertjaxError, match=f"{path}.*cannot be read"):
            pretrain(dataclasses.replace(tiny, tokenizer=TokenizerConfig(path=str(path))))
    assert not Path(tiny.run_dir).exists()


# Runs that start from a folder.


def test_odd_names_from_end_to_end(
    tiny: Config, theirs: Path, tmp_path: Path, two_devices: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrain(dataclasses.replace(tiny, init_from=str(theirs)))
    config = RunFolder(run).config()
    assert config.model == dataclasses.replace(MODEL, dropout=tiny.model.dropout)
    assert config.tokenizer.kind == "wordpiece" and config.tokenizer.path is None
    export_run(RunFolder(run), tmp_path / "out")
    assert "It began with the weights of `theirs`." in (tmp_path / "out" / "README.md").read_text()
    ours, again = Encoder.load(run), Encoder.load(tmp_path / "out")
    for encoder in (ours, again):
        assert encoder.tokenizer.rules.special == ODD
        assert encoder.tokens_read(["the", "<?>"], ["a"]) == ["<s>", "the", "<?>", "<sep/>", "a", "<sep/>"]
    texts = ["The noun1 sees <?> noun2", "near"]
    np.testing.assert_array_equal(ours.encode(texts), again.encode(texts))
    for folder in (run, tmp_path / "out"):
        split = Encoder.load(folder, mesh=MeshConfig(fsdp=2))
        assert split._params["token_embedding"].addressable_shards[0].data.shape == (40, 16 // 2)
        np.testing.assert_allclose(split.encode(texts), ours.encode(texts), rtol=0, atol=1e-5)
    assert np.abs(ours.encode(texts) - Encoder.load(theirs).encode(texts)).max() > 1e-2  # it has learnt something
    # On and on, with words of one's own, which are no more asked for when it is resumed.
    (words := tmp_path / "words.txt").write_text("noun1\nnoun2\nthe\n")
    more = dataclasses.replace(tiny, run_dir=str(tmp_path / "on"), init_from=str(run))
    more = dataclasses.replace(more, tokenizer=TokenizerConfig(add=str(words)))
    on_and_on = pretrain(more)
    assert load(on_and_on).params["token_embedding"].shape == (40, 16)
    words.unlink()
    pretrain(dataclasses.replace(more, train=dataclasses.replace(more.train, steps=5)), resume=True)
    export_run(RunFolder(on_and_on), tmp_path / "with words")
    assert str(tmp_path) not in (tmp_path / "with words" / "README.md").read_text()  # others need not know the place
    for encoder in map(Encoder.load, (on_and_on, tmp_path / "with words")):
        assert encoder.tokenizer.rules.special == ODD and encoder.tokenizer.vocab_size == 26
        split = encoder.tokenizer.split("The noun1 sees noun3")
        assert split == ["the", "noun1", "sees", "n", "##o", "##u", "##n", "##3"]
    # Each keeps the family that it began as, and leaves as that one, unless another is asked for.
    assert config.model.family == RunFolder(on_and_on).config().model.family == "bert"
    (file := on_and_on / "config.yaml").write_text(file.read_text().replace("family: bert", "family: electra"))
    capsys.readouterr()
    export_run(RunFolder(on_and_on), tmp_path / "neither")
    assert "it leaves as BERT, not as the ELECTRA that it began as; --family electra" in capsys.readouterr().out
    file.write_text(file.read_text().replace("hidden_act: gelu_tanh", "hidden_act: gelu"))
    export_run(RunFolder(on_and_on), tmp_path / "electra")
    export_run(RunFolder(on_and_on), tmp_path / "bert", "bert")
    for family in ("electra", "bert"):
        assert json.loads((tmp_path / family / "config.json").read_text())["model_type"] == family


def test_a_recipe_gives_way_to_the_folder_and_what_is_typed_does_not(
    theirs: Path, wikitext: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As in `pretrain --config wikitext2-bert --init_from FOLDER`, whose recipe tells how random weights start."""
    typed = {"init_from": theirs, "run_dir": tmp_path / "run", "data.path": wikitext, "data.cache": tmp_path / "cache"}
    typed |= {"data.max_length": 32, "data.row_length": 32, "eval.max_length": 32, "eval.too_long": "truncate"}
    typed |= {"train.batch_size": 8, "model.hidden_size": 16, "model.dropout": 0.2}
    folder = RunFolder(tmp_path / "run")

    def opened(more: dict[str, str]) -> Config:
        config = load_config("wikitext2-bert", [f"{key}={value}" for key, value in (typed | more).items()])
        keys = [*typed, *more]
        config = with_model_of_init(config, folder, resume=True, typed=keys)
        with open_run(folder, config, SingleProcess(), prepare, resume=True, typed=keys):
            return folder.config()

    def assert_refused(key: str, value: str, there: str) -> None:
        with pytest.raises(BertjaxError, match=f"{key}=.*there {there}.*read from {theirs}; leave it out"):
            opened({key: value})

    for key, value, there in (
        ("model.num_layers", "2", "1"),
        ("model.frequency_bias", "true", "False"),
        ("tokenizer.kind", "word", "wordpiece"),
        ("tokenizer.vocab_size", "9000", "None"),
    ):
        assert_refused(key, value, there)
        assert not folder.path.exists()
    capsys.readouterr()
    config = opened({"model.attention": "xla", "tokenizer.kind": "wordpiece"})
    assert config.model == dataclasses.replace(MODEL, dropout=0.2, attention="xla")
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "the model is that of" in line]
    assert f"{theirs}; of the recipe fall away: model.num_layers=2, model.num_heads=4" in said
    assert "init_scale=0.05" in said and "frequency_bias=True" in said and "hidden_size" not in said
    assert_refused("model.num_layers", "3", "1")  # of a run that has begun, too
    assert_refused("tokenizer.lowercase", "false", "True")


@pytest.mark.parametrize("mesh", [(2, 1, 1), (1, 2, 2)], ids=["rows", "sharded"])
def test_a_run_starts_where_another_ended(
    tiny: Config, tmp_path: Path, devices: Callable[[int], None], mesh: tuple[int, int, int]
) -> None:
    source = pretrain(tiny)
    devices(int(np.prod(mesh)))
    run = pretrain(dataclasses.replace(standing_still(tiny, tmp_path / "next", source), mesh=MeshConfig(*mesh)))
    assert held_out(run) == pytest.approx(held_out(source), rel=1e-5)
    assert_equal_params(run, source)


def test_what_a_folder_lacks_is_fresh_and_said(
    tiny: Config, theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bare = Path(shutil.copytree(theirs, tmp_path / "bare"))
    tensors = load_file(bare / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if "cls.pred" not in name}, bare / "model.safetensors")
    run = pretrain(standing_still(tiny, tmp_path / "run", bare))
    assert f"NOTICE:   {bare} has no weights of mlm: the run starts with fresh ones" in capsys.readouterr().out
    model = Bert(RunFolder(run).config().model)
    fresh = jax.jit(lambda: init_params(model, jax.random.key(tiny.seed)))()
    params, source = load(run).params, load(theirs).params
    np.testing.assert_allclose(params["mlm"]["hidden"]["kernel"], fresh["mlm"]["hidden"]["kernel"], atol=1e-7)
    jax.tree.map(np.testing.assert_array_equal, params["nsp"], source["nsp"])
    jax.tree.map(np.testing.assert_array_equal, params["block_0"], source["block_0"])


def test_going_on_equals_never_having_stopped(tiny: Config, theirs: Path, tmp_path: Path) -> None:
    """Before the first checkpoint the folder is read again; after it nobody asks for it."""
    source = Path(shutil.copytree(theirs, tmp_path / "source"))
    config = dataclasses.replace(
        tiny, init_from=str(source), checkpoint=CheckpointConfig(every=1, keep=4), eval=EvalConfig(every=1)
    )
    whole = pretrain(config)
    for steps in (0, 2):
        killed = Path(shutil.copytree(whole, tmp_path / f"killed-{steps}"))
        for step in range(steps + 1, 5):
            shutil.rmtree(killed / "checkpoints" / str(step))
        if steps:
            shutil.rmtree(source)
        pretrain(dataclasses.replace(config, run_dir=str(killed)), resume=True)
        assert_equal_params(killed, whole)
        assert RunFolder(killed).metrics.file.read_bytes() == RunFolder(whole).metrics.file.read_bytes()
    shutil.rmtree(killed / "checkpoints")
    with pytest.raises(BertjaxError, match="source"):
        pretrain(dataclasses.replace(config, run_dir=str(killed)), resume=True)


def test_a_name_on_the_hub_is_a_model_and_the_run_keeps_its_commit(
    tiny: Config, theirs: Path, hub: Hub, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["org/bert"] = {
        str(path.relative_to(theirs)): path.read_bytes() for path in theirs.rglob("*") if path.is_file()
    }
    there, name = Path("org/bert"), f"org/bert@{COMMIT}"
    jax.tree.map(np.testing.assert_array_equal, load("org/bert").params, load(theirs).params)
    assert Encoder.load(there).sentence == Encoder.load(theirs).sentence and model_config(name) == MODEL
    for kind in (Classifier, Matcher, Tagger):
        assert f"{COMMIT}/config.json: architectures=['BertForPreTraining'] has no head" in refusal(kind.load, there)
    folder = RunFolder(tiny.run_dir)

    def begun(init_from: str, *, resume: bool) -> str | None:
        config = dataclasses.replace(tiny, init_from=init_from)
        config = with_model_of_init(config, folder, resume=resume)
        with open_run(folder, config, SingleProcess(), prepare, resume=resume) as prepared:
            assert prepared.tokenizer.vocab_size == load(theirs).tokenizer.vocab_size
        return folder.config().init_from

    assert begun("org/bert", resume=False) == name
    hub.revisions = {"main": "f" * 40, "f" * 40: "f" * 40}  # it has moved on
    assert begun("org/bert", resume=True) == begun(name, resume=True) == name
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert begun("org/bert@main", resume=True) == name
    capsys.readouterr()
    assert main(["fill-mask", "org/none", "the [MASK]"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "org/none is no folder here" in line and "HF_HUB_OFFLINE is set" in line


def test_what_does_not_go_with_it(tiny: Config, theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(BertjaxError, match="tokenizer.path=x has no effect with init_from=y"):
        dataclasses.replace(tiny, init_from="y", tokenizer=TokenizerConfig(path="x"))
    long = dataclasses.replace(
        tiny,
        init_from=str(theirs),
        data=dataclasses.replace(tiny.data, max_length=64),
        model=dataclasses.replace(tiny.model, max_position=64),
    )
    with pytest.raises(BertjaxError, match="data.max_length=64 is above model.max_position=32 of .*theirs"):
        pretrain(long)
    with pytest.raises(BertjaxError, match="it has neither config.yaml nor config.json"):
        pretrain(dataclasses.replace(tiny, init_from=str(tmp_path)))
    assert not Path(tiny.run_dir).exists()
