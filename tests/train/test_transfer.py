"""What of a trained model learns on: frozen layers, layers that start anew, and rates that fall with the depth."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labelled_texts import but, examples, write_model

from bertjax import Classifier, finetune
from bertjax.config import BertConfig, Config, LoraConfig
from bertjax.data.batching.labelled import LabelledBatch
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.folder import leaves, write_folder
from bertjax.inference.pretrained import load
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.embeddings import Embeddings
from bertjax.models.encoder import Block
from bertjax.models.lora import merged, with_adapters
from bertjax.models.parameters import params_template
from bertjax.models.parts import split
from bertjax.objectives.classification import classification_objective
from bertjax.parallel.sharding import make_mesh
from bertjax.runs.folder import RunFolder
from bertjax.train.initial_state import extended_positions, from_folder
from bertjax.train.open_run import with_model_of_init
from bertjax.train.step import gradients


def test_what_is_frozen_stays_bit_for_bit_and_costs_no_optimiser_state(
    small: Config, two_layers: Path, states: list[Any]
) -> None:
    """With an average, and lower rates below."""
    frozen = but(small, init_from=str(two_layers), optim__freeze_layers=1, optim__layer_decay=0.5, optim__ema_decay=0.5)
    run = finetune(frozen)
    before, after = dict(leaves(load(two_layers).params)), dict(leaves(load(run).params))
    for path, leaf in after.items():
        if path.startswith(("block_0/", "embedding_norm/")) or path.endswith("_embedding"):
            np.testing.assert_array_equal(leaf, before[path], err_msg=path)
        elif path.split("/")[0] not in ("classifier", "block_1"):
            assert np.abs(leaf - before[path]).max() > 0, path
    (state,) = states
    learning = {path for path, _ in leaves(state.params)}
    assert {path.split("/")[0] for path in learning} == {"block_1", "pooler", "classifier"}
    moments = [path for path, _ in jax.tree.leaves_with_path(state.opt_state) if "mu" in str(path)]
    assert len(moments) == len(learning) == len(list(leaves(state.average)))
    with pytest.raises(BertjaxError, match=r"optim.freeze_layers=0 \(the run has 1\)"):
        finetune(but(frozen, optim__freeze_layers=0), resume=True)
    assert len(Classifier.load(run).predict(["word1", "redish"])) == 2


def test_no_way_back_is_computed_below_what_learns() -> None:
    """With all layers frozen a step has four more products than the way there: two of each linear layer of the head."""
    mesh = make_mesh(devices=jax.devices()[:1])
    model = SequenceClassifier(Bert(BertConfig(9, 4, 2, 1, 4, 4), mesh=mesh), 3)
    objective, params = classification_objective(model), params_template(model)
    batch = LabelledBatch(*(np.ones((1, 4), np.int32) for _ in range(4)), *(np.ones((1, 1), np.int32),) * 3)
    key = jax.random.key(0)
    forward = jax.make_jaxpr(lambda params: objective.metrics(params, batch, key))(params)
    learning, frozen = split(params, 2)
    both = jax.make_jaxpr(lambda learning, frozen: gradients(objective, learning, batch, key, frozen=frozen))
    assert str(both(learning, frozen)).count("dot_general[") == 4 + str(forward).count("dot_general[")


def test_last_layers_start_anew(small: Config, two_layers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh, found = make_mesh(devices=jax.devices()[:1]), load(two_layers)
    fresh = jax.tree.map(jnp.zeros_like, found.params)
    config = but(small, task__reinit_layers=1, model=found.config, init_from=str(two_layers))
    params = from_folder(config, mesh, fresh)
    assert "but for block_1, pooler, which start anew" in capsys.readouterr().out
    for path, leaf in leaves(params):
        anew = path.split("/")[0] in ("block_1", "pooler")
        np.testing.assert_array_equal(leaf, 0 if anew else dict(leaves(found.params))[path], err_msg=path)


def test_a_run_starts_from_some_of_the_layers(small: Config, tmp_path: Path) -> None:
    """Its model is what these compute one after the other."""
    three = write_model(tmp_path / "three", num_layers=3)
    config = but(small, init_from=str(three), init_layers=(0, 2))
    config = with_model_of_init(config, RunFolder(config.run_dir), resume=False)
    (model, params, tokenizer), mesh = load(three), make_mesh(devices=jax.devices()[:1])
    assert config.model == dataclasses.replace(model, num_layers=2, dropout=small.model.dropout)
    fresh = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params_template(Bert(config.model)))
    found = from_folder(config, mesh, fresh)
    assert found.keys() == fresh.keys()
    ids_bt = np.array([tokenizer.ids(["<cls>", "word1", "redish", "word2", "<sep>"])])
    inputs = (np.broadcast_to(np.arange(5), (1, 5)), np.ones((1, 5), np.int32))

    @jax.jit
    def by_hand(params: Any) -> jax.Array:
        embeddings, block = Embeddings(model, jnp.float32, None), Block(model, jnp.float32)
        x_nd = embeddings.apply({"params": params}, ids_bt, 0 * ids_bt, inputs[0], train=False)
        for layer in (0, 2):
            x_nd = block.apply({"params": params[f"block_{layer}"]}, x_nd, *inputs, train=False)
        return x_nd

    encode = jax.jit(functools.partial(Bert(config.model).apply, method="encode"))
    encoded_1td = encode({"params": found}, ids_bt, 0 * ids_bt, *inputs)
    np.testing.assert_allclose(encoded_1td[0], by_hand(params), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        ((2, 0), "does not name layers from 0 on, each once and in their order"),
        ((0, 0), "does not name layers"),
        ((), "does not name layers"),
        ((-1, 0), "does not name layers"),
        ((0, 12), "there are 12 layers, 0 to 11; give some of these"),
    ],
)
def test_only_layers_that_are_there_are_started_from(layers: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(BertjaxError, match=complaint):
        Config(init_from="there", init_layers=layers).model.with_layers(layers)


def test_layers_stay_what_they_were() -> None:
    modern = BertConfig(norm="pre", first_attention_norm=False, window=4)
    assert modern.with_layers((0, 1, 2, 3, 10)).num_layers == 5
    for layers, complaint in (
        ((0, 2, 3), "layer 3 sees whole texts, and in place 2 a layer sees 4 tokens to either side"),
        ((3, 4), "layer 0 has no norm before its attention"),
    ):
        with pytest.raises(BertjaxError, match=complaint):
            modern.with_layers(layers)
    with pytest.raises(BertjaxError, match="share one's parameters"):
        BertConfig(share_layers=True).with_layers((0,))
    with pytest.raises(BertjaxError, match="are layers of init_from, and there is none"):
        Config(init_layers=(0, 1))


@pytest.mark.parametrize("how", ["tiled", "interpolated"])
def test_positions_are_extended(how: Any) -> None:
    table_pd = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    found_ld = np.asarray(extended_positions(jnp.asarray(table_pd), 12, how))
    if how == "tiled":
        np.testing.assert_array_equal(found_ld, np.concatenate((table_pd, table_pd, table_pd[:2])))
    else:
        columns = [np.interp(np.linspace(0, 4, 12), np.arange(5), column) for column in table_pd.T]
        np.testing.assert_allclose(found_ld, np.stack(columns, 1), rtol=0, atol=1e-6)
    one_ld = extended_positions(jnp.asarray(table_pd[:1]), 3, how)
    np.testing.assert_array_equal(one_ld, np.repeat(table_pd[:1], 3, 0))


def test_a_run_reads_longer_texts_than_the_model_that_it_starts_from(small: Config, two_layers: Path) -> None:
    typed, folder = ["model.max_position"], RunFolder(small.run_dir)
    longer = but(small, init_from=str(two_layers), model__max_position=24, data__max_length=24)
    config = with_model_of_init(longer, folder, resume=False, typed=typed)
    assert config.model == dataclasses.replace(
        load(two_layers).config, max_position=24, dropout=longer.model.dropout, frequency_bias=False
    )
    fresh = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params_template(Bert(config.model)))
    found, before = from_folder(config, make_mesh(devices=jax.devices()[:1]), fresh), load(two_layers).params
    table_pd = before.pop("position_embedding")
    np.testing.assert_array_equal(found["position_embedding"], np.concatenate((table_pd, table_pd[:8])))
    for path, leaf in leaves(before):
        np.testing.assert_array_equal(dict(leaves(found))[path], leaf, err_msg=path)
    # What is not typed gives way, and there are no fewer than there.
    assert with_model_of_init(longer, folder, resume=False).model.max_position == 16
    with pytest.raises(BertjaxError, match="model.max_position=8 .there 16. has no effect"):
        with_model_of_init(but(longer, model__max_position=8), folder, resume=False, typed=typed)


@pytest.mark.parametrize("tied", [True, False])
def test_words_that_are_added_start_from_the_mean_of_their_pieces(tmp_path: Path, tied: bool) -> None:
    rules = Rules("wordpiece", special=BERTS_SPECIAL_TOKENS)
    old = Tokenizer.from_vocab(
        {token: at for at, token in enumerate([*rules.special_tokens, "a", "##b", "##c"])}, rules
    )
    model = BertConfig(old.vocab_size, 8, 1, 2, 8, 8, tie_word_embeddings=tied)
    rng = np.random.default_rng(0)
    draw: Any = functools.partial(jax.tree.map, lambda leaf: rng.normal(size=leaf.shape).astype(np.float32))
    write_folder(model, trained := draw(params_template(Bert(model))), old, tmp_path / "old", card="")
    new = old.with_words(["abc", "\u00fc"])  # the second is unknown to the old one
    config = Config(init_from=str(tmp_path / "old"), model=dataclasses.replace(model, vocab_size=new.vocab_size))
    fresh = jax.tree.map(jnp.asarray, draw(params_template(Bert(config.model))))
    found = dict(leaves(from_folder(config, make_mesh(devices=jax.devices()[:1]), fresh, tokenizer=new)))
    grown = {"token_embedding", *(["mlm/bias"] if tied else ["mlm/vocab/bias", "mlm/vocab/kernel"])}
    for path, leaf in leaves(trained):
        if path in grown:
            there, here = (array.T if path.endswith("kernel") else array for array in (leaf, found[path]))
            np.testing.assert_array_equal(here[:8], there, err_msg=path)
            np.testing.assert_allclose(here[8:], np.stack([there[5:8].mean(0), there[1]]), rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(found[path], leaf, err_msg=path)


@pytest.mark.parametrize("key", ["optim__freeze_layers", "task__reinit_layers"])
def test_there_are_no_more_layers_than_the_model_has(small: Config, key: str) -> None:
    with pytest.raises(BertjaxError, match=r"=3 is above model.num_layers=1 of .*base; give as many at most"):
        finetune(but(small, **{key: 3}))


@pytest.mark.parametrize("kernels, number", [("query+value", 2), ("attention", 4), ("all", 6)])
def test_adapters_add_nothing_at_first_and_then_their_product(two_layers: Path, kernels: Any, number: int) -> None:
    params, lora = load(two_layers).params, LoraConfig(rank=3, alpha=6.0, kernels=kernels)
    adapted = with_adapters(params, lora, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, merged(adapted, lora), params)
    pairs = dict(leaves(adapted["lora"]))
    assert len(pairs) == 2 * 2 * number
    moved = adapted | {"lora": jax.tree.map(lambda leaf: leaf + 1, adapted["lora"])}
    for path, leaf in leaves(merged(moved, lora)):
        above = path.removesuffix("/kernel")
        added = 0.0
        if path.endswith("/kernel") and f"{above}/a" in pairs:
            added = 2 * (np.float64(pairs[f"{above}/a"]) + 1) @ (np.float64(pairs[f"{above}/b"]) + 1)
        np.testing.assert_allclose(leaf, dict(leaves(params))[path] + added, rtol=1e-5, atol=1e-6, err_msg=path)


def test_a_run_with_adapters_gives_plain_weights_and_goes_on_after_a_kill(
    small: Config, one_layer: Path, tmp_path: Path, kill: Callable, states: list[Any]
) -> None:
    """The heads learn too; the rest stays bit for bit, and has no optimiser state."""
    small = but(small, lora__rank=2, lora__kernels="attention", checkpoint__every=2, eval__every=2)
    run = finetune(small)
    (state,) = states
    assert {path.rpartition("/")[2] for path, _ in leaves(state.params["lora"])} == {"a", "b"}
    assert state.params.keys() == {"lora", "pooler", "classifier"}
    jax.tree.map(
        np.testing.assert_array_equal,
        dict(leaves(state.frozen)),
        {path: leaf for path, leaf in leaves(load(one_layer).params) if path in dict(leaves(state.frozen))},
    )
    plain = load(run).params
    assert plain.keys() == {*load(one_layer).params, "classifier"}
    for path, leaf in leaves(plain):
        if path.startswith("block_"):
            moved = np.abs(leaf - dict(leaves(state.frozen))[path]).max()
            assert moved > 1e-4 if path.endswith("kernel") and "attention" in path else moved == 0, path
    loss = RunFolder(run).metrics.newest_evaluation()["held_out_label_loss"]
    probabilities_nc = Classifier.load(run).probabilities([text for text, _ in examples(8, 2)])
    labels = [["blue", "green", "red"].index(label) for _, label in examples(8, 2)]
    assert -np.log(probabilities_nc[range(8), labels]).mean() == pytest.approx(loss, rel=1e-3)

    killed = but(small, run_dir=str(tmp_path / "killed"))
    kill(killed, 3)
    finetune(killed, resume=True)
    jax.tree.map(np.testing.assert_array_equal, states[1], state)
    assert RunFolder(killed.run_dir).metrics.read() == RunFolder(run).metrics.read()
