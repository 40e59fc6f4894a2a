"""Hugging Face folders: what is read equals what `transformers` made, what is written reads back equal."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertjax.config import BertConfig, Config, TokenizerConfig
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub import bert
from bertjax.hub.bert import LAYOUT, SETTINGS
from bertjax.hub.folder import check_writable, leaves, read_folder, write_folder
from bertjax.inference.encoder import Encoder
from bertjax.models.bert import Bert, params_template
from bertjax.train.pretrain import pretrain

BERT = Path(__file__).parents[1] / "reference" / "bert"
TINY = BertConfig(vocab_size=40, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=12, max_position=20)
WORDS = Tokenizer.train(["a crane is flying Over it"], min_frequency=1)
PIECES = Tokenizer.train(
    ["a crane is flying Over it"],
    min_frequency=1,
    rules=Rules("wordpiece", special=BERTS_SPECIAL_TOKENS),
    vocab_size=40,
)


def random_params(config: BertConfig) -> dict:
    """Norms and biases too, which would otherwise hide mistakes."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), params_template(Bert(config)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the folder that `transformers` made."""
    return Path(shutil.copytree(BERT, tmp_path / "bert"))


# Read.


def expected_arrays() -> dict[str, np.ndarray]:
    with np.load(BERT / "expected.npz") as arrays:
        return dict(arrays)


def test_it_says_what_transformers_says() -> None:
    """Against figures that `transformers` computed (make_bert.py)."""
    theirs, expected = read_folder(BERT), expected_arrays()
    tokens, real = expected["tokens"], expected["real"]
    b, t = tokens.shape
    positions = np.broadcast_to(np.arange(t), (b, t))
    batch = (tokens, expected["segments"], positions, real)
    model = Bert(theirs.config)
    hidden = model.apply({"params": theirs.params}, *batch, method=model.encode)
    mlm, nsp = model.apply({"params": theirs.params}, *batch, positions, np.zeros((b, 1), int))
    there = real > 0
    np.testing.assert_allclose(np.asarray(hidden)[there], expected["hidden"][there], atol=1e-5)
    np.testing.assert_allclose(np.asarray(mlm)[there], expected["mlm"][there], atol=1e-5)
    np.testing.assert_allclose(np.asarray(nsp)[:, 0], expected["nsp"][:, ::-1], atol=1e-5)  # is next = 1 here
    assert np.abs(expected["nsp"][:, 0] - expected["nsp"][:, 1]).min() > 0.1


def test_its_tokens_are_theirs() -> None:
    tokenizer, expected = read_folder(BERT).tokenizer, expected_arrays()
    assert tokenizer.vocabulary[1:6] == (0, 2, 3, 4, 5)  # wherever they stand
    for row, texts in enumerate([("A crane is flying!", "he just left,"), ("the [MASK] came", "東 Été")]):
        first, second = (tokenizer.ids(tokenizer.split(text)) for text in texts)
        ids = [3, *first, 4, *second, 4]
        assert ids == expected["tokens"][row, : len(ids)].tolist()


def test_an_encoder_of_it() -> None:
    expected = expected_arrays()
    encoder = Encoder.load(BERT)
    encoded = encoder.encode(["A crane is flying!"], ["he just left,"], pooling="cls")
    np.testing.assert_allclose(encoded[0], expected["hidden"][0, 0], atol=1e-5)


def test_old_names_and_only_a_vocabulary(folder: Path) -> None:
    """TensorFlow's names of norms, no heads, no `bert.`, and vocab.txt alone, as folders of 2019 are."""
    old = {}
    for name, array in load_file(folder / "model.safetensors").items():
        if name.startswith("bert."):
            name = name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma")
            old[name.replace("LayerNorm.bias", "LayerNorm.beta")] = array
    save_file(old, folder / "model.safetensors")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    whole, read = read_folder(BERT), read_folder(folder)
    assert read.tokenizer.to_json() == whole.tokenizer.to_json()
    assert set(whole.params) - set(read.params) == {"mlm", "nsp"}
    for name, leaf in leaves(read.params):
        np.testing.assert_array_equal(leaf, dict(leaves(whole.params))[name])


def shard(folder: Path) -> None:
    """Splits the weights in two files with an index; a layer is in each."""
    tensors = load_file(folder / "model.safetensors")
    places = {name: f"model-0000{1 + ('layer.1' in name)}-of-00002.safetensors" for name in tensors}
    for file in set(places.values()):
        save_file({name: tensors[name] for name, place in places.items() if place == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_shards_are_read_where_there_is_no_whole_file(folder: Path) -> None:
    shard(folder)
    for file in folder.glob("model-*"):  # an older save's
        save_file({name: array + 1 for name, array in load_file(file).items()}, file)
    whole = read_folder(BERT).params
    jax.tree.map(np.testing.assert_array_equal, read_folder(folder).params, whole)
    for file in folder.glob("model-*"):
        file.unlink()
    jax.tree.map(np.testing.assert_array_equal, read_folder(folder).params, whole)
    shard(folder)
    (folder / "model.safetensors").unlink()
    jax.tree.map(np.testing.assert_array_equal, read_folder(folder).params, whole)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BertjaxError, match="^[^:]*bert has no model-00002-of-00002.safetensors: give a folder with"):
        read_folder(folder)


def test_weights_that_are_left_over_are_named(folder: Path) -> None:
    """But not those that `transformers` knows: heads of tasks, copies of tied weights, constants of old versions."""
    known = {"bert.embeddings.position_ids": np.arange(20)[None], "classifier.weight": np.full((3, 8), np.nan)}
    embedding = load_file(folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    known |= {"qa_outputs.bias": np.zeros(2, np.float32), "cls.predictions.decoder.weight": embedding}
    reweigh(folder, **known)
    read_folder(folder)  # a warning would be an error
    reweigh(folder, **{"bert.adapter.weight": np.zeros(2), "projection": np.zeros(3)})
    with pytest.warns(UserWarning, match="has weights .* left out: bert.adapter.weight, projection$"):
        read_folder(folder)
    rewrite(folder / "config.json", num_hidden_layers=1)
    some = r"bert.adapter.weight, (bert.encoder.layer.1[a-z.A-Z]+(, | )){4}and 13 more$"
    with pytest.warns(UserWarning, match=some):
        assert read_folder(folder).config.num_layers == 1


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def reweigh(folder: Path, **changes: Any) -> None:
    """Puts other tensors in the file, by the ends of their names; None takes one out."""
    tensors = load_file(folder / "model.safetensors")
    for end, array in changes.items():
        name = next((name for name in tensors if name.endswith(end)), end)
        tensors[name] = np.asarray(array)
        if array is None:
            del tensors[name]
    save_file(tensors, folder / "model.safetensors")


LAST_BIAS = "layer.1.output.dense.bias"  # of eight numbers
ODD_NUMBERS = np.array([0, np.nan, 1, -np.inf, np.inf, 0, 0, 0], np.float16)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def of_sentence_pieces(folder: Path) -> None:
    unigram = {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}
    splitter = {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"}
    rewrite(folder / "tokenizer.json", pre_tokenizer=splitter, model=unigram, added_tokens=[])


def misnumbered(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"over": 16', '"over": 99'))


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda folder: rewrite(folder / "config.json", model_type=None), "names no model_type; only BERT"),
        (lambda folder: rewrite(folder / "config.json", model_type="gpt2"), "is a 'gpt2' model; only BERT"),
        (lambda folder: rewrite(folder / "config.json", hidden_act="mish"), "hidden_act='mish' is not supported"),
        (lambda folder: rewrite(folder / "config.json", type_vocab_size=1), "type_vocab_size=1 is not supported"),
        (lambda folder: rewrite(folder / "config.json", hidden_size="8"), "hidden_size='8' is not a number"),
        (
            lambda folder: rewrite(folder / "config.json", hidden_size=12),
            r"is \[32, 8\], not what its config",
        ),
        (lambda folder: rewrite(folder / "config.json", vocab_size=22), "word_embeddings.weight is"),
        (misnumbered, "has 100 tokens, up to 'over', and weights for vocab_size=32"),
        (lambda folder: (folder / "config.json").write_text("[]"), "holds no keys"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (
            lambda folder: reweigh(folder, **{"embeddings.LayerNorm.bias": np.float32(1)}),
            r"LayerNorm.bias is \[\], not what its config",
        ),
        (lambda folder: reweigh(folder, **{LAST_BIAS: None}), f"has no weight bert.encoder.{LAST_BIAS}"),
        (
            lambda folder: reweigh(folder, **{LAST_BIAS: ODD_NUMBERS}),
            f"{LAST_BIAS} has 3 of 8 numbers that are NaN or infinite; .* give another",
        ),
        (lambda folder: reweigh(folder, **{LAST_BIAS: np.full(8, 1e300)}), f"{LAST_BIAS} has 8 of 8 numbers that"),
        (lambda folder: reweigh(folder, **{"relationship.bias": np.full(2, np.inf)}), "bias has 2 of 2"),
        (lambda folder: reweigh(folder, **{LAST_BIAS: np.ones(8, np.int8)}), f"{LAST_BIAS} is of type int8, not float"),
        (pickled, "pytorch_model.bin is a pickle, which could run anything, and is not read"),
        (cut, "model.safetensors cannot be read"),
        (of_sentence_pieces, "another kind .Unigram, BertNormalizer, Metaspace."),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
        (lambda folder: rewrite(folder / "tokenizer_config.json", unk_token="<m>"), "its vocabulary lacks <m>"),
        (lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "vocab.txt")], "vocab.txt"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(folder: Path, change: object, complaint: str) -> None:
    change(folder)  # type: ignore[operator]
    with pytest.raises(BertjaxError, match=complaint) as caught:
        read_folder(folder)
    assert str(folder) in str(caught.value)


def test_a_tokenizer_of_more_tokens_than_the_model_has_rows(folder: Path) -> None:
    rewrite(folder / "tokenizer_config.json", additional_special_tokens=[f"<{number}>" for number in range(10)])
    with pytest.raises(BertjaxError, match="has 33 tokens, up to '<9>', and weights for vocab_size=32"):
        read_folder(folder)


# Written.


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_every_parameter_has_a_name_there(tie_word_embeddings: bool) -> None:
    config = dataclasses.replace(TINY, tie_word_embeddings=tie_word_embeddings)
    table = LAYOUT.names(config)
    assert set(table) == {path for path, _ in leaves(params_template(Bert(config)))}
    assert len(set(table.values())) == len(table)
    if tie_word_embeddings:
        assert set(table.values()) == set(load_file(BERT / "model.safetensors"))


@pytest.mark.parametrize("tokenizer", [WORDS, PIECES], ids=["words", "pieces"])
@pytest.mark.parametrize("tie_word_embeddings", [True, False])
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_tanh", "relu", "silu"])
def test_what_is_written_is_read_back(
    tmp_path: Path, tokenizer: Tokenizer, tie_word_embeddings: bool, hidden_act: str
) -> None:
    config = dataclasses.replace(
        TINY, tie_word_embeddings=tie_word_embeddings, hidden_act=hidden_act, layer_norm_eps=1e-5
    )
    params = random_params(config)
    write_folder(config, params, tokenizer, tmp_path / "deep" / "out", card="# A card\n")
    read = read_folder(tmp_path / "deep" / "out")
    assert read.config == config and read.tokenizer.to_json() == tokenizer.to_json()
    jax.tree.map(np.testing.assert_array_equal, params, read.params)  # in one structure, too
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert len({path.stat().st_mode for path in (tmp_path / "deep" / "out").glob("*.*")}) == 1  # none is private


NOT_BERTS: dict[str, tuple[Any, str]] = {
    "norm": ("pre", "post"),
    "norm_kind": ("rms", "layer"),
    "embedding_norm": (False, "true"),
    "positions": ("rotary", "learned"),
    "relative_attention_bias": (True, "false"),
    "biases": (False, "true"),
    "block_biases": (False, "true"),
    "hidden_act": ("geglu", "gelu or gelu_tanh or relu or silu"),
    "window": (4, "0"),
    "token_types": (1, "2"),
    "embedding_size": (4, "null"),
    "share_layers": (True, "false"),
    "pooler_act": ("relu", "tanh"),
    "pooler_norm": (True, "false"),
    "classifier_pooling": ("mean", "cls"),
}
PLAIN: dict[str, Any] = {"frequency_bias": True, "cooccurrence_embedding": True, "attention": "xla"}
PLAIN |= {"tie_word_embeddings": False, "init": "textbook", "init_scale": 0.1, "hidden_act": "silu", "dropout": 0.3}
PLAIN |= {"attention_start": "random"}  # the other one is of rotary positions
PLAIN |= {"family": "bert"}  # which tells what it began as
PLAIN |= {"nsp_features": "pair"}  # such a head is left out
PLAIN |= {"rotary_theta": 5.0, "global_every": 2, "local_rotary_theta": 3.0}  # of rotary positions, and of windows
PLAIN |= {"classifier_bias": True}  # which labels have anyway
PLAIN |= {"first_attention_norm": False}  # of norms before the sublayers


@pytest.mark.parametrize("key", NOT_BERTS)
def test_what_has_no_place_in_berts_format_is_refused(tmp_path: Path, key: str) -> None:
    value, carried = NOT_BERTS[key]
    config = dataclasses.replace(TINY, **{key: value})
    with pytest.raises(BertjaxError) as caught:
        write_folder(config, random_params(config), WORDS, tmp_path / "out", card="", families=(bert.BERT,))
    message = str(caught.value)
    assert message.startswith(f"BERT's format has no place for model.{key}={str(value).lower()} (")
    assert f"; train with model.{key}={carried}, or export" in message and "\n" not in message
    assert not list(tmp_path.iterdir())


def test_every_setting_of_the_model_is_carried_or_refused() -> None:
    sizes = {*SETTINGS, "vocab_size"}
    assert {field.name for field in dataclasses.fields(BertConfig)} == sizes | NOT_BERTS.keys() | PLAIN.keys()


def test_config_json_and_the_card_as_they_are_written(tmp_path: Path) -> None:
    write_folder(TINY, random_params(TINY), WORDS, tmp_path / "out", card="# A card\n")
    assert (tmp_path / "out" / "README.md").read_text() == "# A card\n"
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["model_type"] == "bert" and written["architectures"] == ["BertForPreTraining"]
    assert written["pad_token_id"] == 0 and written["torch_dtype"] == "float32"


def test_all_that_is_refused_is_named_at_once(tmp_path: Path) -> None:
    together = NOT_BERTS.keys() - {"window"}  # which has no place beside a bias of distances
    config = dataclasses.replace(TINY, **{key: NOT_BERTS[key][0] for key in together})
    with pytest.raises(BertjaxError) as caught:
        check_writable(config, tmp_path / "out", families=(bert.BERT,))
    assert all(f"model.{key}=" in str(caught.value) for key in together)
    check_writable(dataclasses.replace(TINY, **PLAIN), tmp_path / "out")


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(BertjaxError, match="exists and is left as it is"):
        write_folder(TINY, {}, WORDS, tmp_path / "out", card="")
    (tmp_path / "file").touch()
    with pytest.raises(BertjaxError, match="cannot write"):
        write_folder(TINY, random_params(TINY), WORDS, tmp_path / "file" / "out", card="")


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
def test_a_run_and_its_export_encode_alike(tiny: Config, tmp_path: Path, capsys, kind: str) -> None:
    from bertjax.cli.main import main

    model = dataclasses.replace(tiny.model, embedding_norm=True, biases=True)
    size = 40 if kind == "wordpiece" else None
    tokenizer = TokenizerConfig(kind, size, min_frequency=1)  # type: ignore[arg-type]
    run = pretrain(dataclasses.replace(tiny, model=model, tokenizer=tokenizer))
    out = tmp_path / "exported"
    assert main(["export", str(run), str(out)]) == 0
    texts = ["the noun1 sees a noun2", "near"]
    np.testing.assert_array_equal(Encoder.load(out).encode(texts), Encoder.load(run).encode(texts))
    card = (out / "README.md").read_text()
    for part in (
        "wikitext-2/train",
        "for 4 steps of 8 pairs",
        "wikitext-2/valid at step 4: MLM loss",
        "jax ",
    ):
        assert part in card
    assert str(tmp_path) not in card
    capsys.readouterr()
    assert main(["export", str(run), str(out)]) == 2
    assert "exists and is left as it is" in capsys.readouterr().err
    assert main(["export", str(tmp_path), str(tmp_path / "other")]) == 2
    assert "is not a run's folder" in capsys.readouterr().err
