"""Against the real transformers and sentence-transformers: the folders that they make, and what they make of ours.

`make test-interop` installs them. All weights are freshly made and random, norms and biases too.
"""

import dataclasses
import itertools
import os
import typing
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.data.sources import python_docs
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.bert import BERT as BERTS_FORMAT
from bertjax.hub.family import HEADS
from bertjax.hub.folder import write_folder
from bertjax.inference.encoder import Encoder
from bertjax.inference.pretrained import Pretrained, load
from bertjax.models.bert import Bert

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
torch = pytest.importorskip("torch", reason="torch is not installed; make test-interop installs it")
transformers = pytest.importorskip("transformers", reason="it is not installed; make test-interop installs it")
sentence_transformers = pytest.importorskip(
    "sentence_transformers", reason="it is not installed; make test-interop installs it"
)
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

ATOL = 1e-4
UNCASED = Rules("wordpiece", special=BERTS_SPECIAL_TOKENS)
CASED = Rules("wordpiece", lowercase=False, strip_accents=False, special=BERTS_SPECIAL_TOKENS)
ACTIVATIONS = BERTS_FORMAT.carried["hidden_act"].values
TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}
BASE = {"vocab_size": 30522}
LARGE = {
    "vocab_size": 28996,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
FIRSTS = ["A Crane is flying over the Été!", "he [MASK] left", "on"]
SECONDS = ["near the 東 sea,", "it came by a longer and greyer way than the others did", "Über it"]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """10,000 of real text: of WikiText-2 where $BERTJAX_DATA has it, else of Python's documentation."""
    if "BERTJAX_DATA" in os.environ:
        files = [Path(os.environ["BERTJAX_DATA"], "wikitext-2", f"wiki.{split}.tokens") for split in ("valid", "test")]
        whole = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
        found = [*whole, *(sentence for line in whole for sentence in line.split(" . "))]
    else:
        documents = itertools.chain.from_iterable(python_docs.documents("train"))
        found = [sentence for paragraph in documents for sentence in paragraph]
    chosen = [line.strip() for line in found if line.strip()][:10_000]
    assert len(chosen) == 10_000
    return chosen


@pytest.fixture(scope="module", params=[UNCASED, CASED], ids=["uncased", "cased"])
def pieces(request: pytest.FixtureRequest, lines: list[str]) -> Tokenizer:
    return Tokenizer.train(lines, min_frequency=2, rules=request.param, vocab_size=3000)


def their_tokenizer(tokenizer: Tokenizer, folder: Path) -> typing.Any:
    """Made by them of a vocab.txt, as the published folders' were."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(tokenizer.tokens(range(tokenizer.vocab_size))) + "\n")
    made = transformers.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=tokenizer.rules.lowercase)
    made.save_pretrained(folder)
    return made


def their_folder(folder: Path, tokenizer: Tokenizer, **settings: typing.Any) -> tuple[typing.Any, typing.Any]:
    """A BERT that they made, random, and its tokenizer, both saved by them."""
    torch.manual_seed(0)
    settings = {"vocab_size": tokenizer.vocab_size} | settings
    model = transformers.BertForPreTraining(transformers.BertConfig(**settings)).eval()
    shake(model, noise=0.3 if model.config.hidden_size < 100 else 0.02)  # enough to tell gelu from its approximations
    model.save_pretrained(folder)
    return model, their_tokenizer(tokenizer, folder)


def shake(model: typing.Any, noise: float = 0.3) -> None:
    """Norms and biases are 1 and 0 otherwise, which would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))


def random_params(config: BertConfig, noise: float = 0.3) -> dict:
    rng = np.random.default_rng(1)
    params = drawn_params(Bert(config))
    return jax.tree.map(lambda leaf: np.asarray(leaf + rng.normal(0, noise, leaf.shape), np.float32), params)


def differences(ours: Pretrained, model: typing.Any, tokenizer: typing.Any) -> dict[str, float]:
    """The largest between our outputs and theirs: hidden states, MLM logits, NSP logits. Padding does not count."""
    inputs = tokenizer(FIRSTS, SECONDS, padding=True, return_tensors="pt")
    with torch.no_grad():
        said = model(**inputs, output_hidden_states=True)
    tokens_bt, segments_bt, real_bt = (
        inputs[name].numpy() for name in ("input_ids", "token_type_ids", "attention_mask")
    )
    b, t = tokens_bt.shape
    positions_bt = np.broadcast_to(np.arange(t), (b, t))
    batch = (tokens_bt, segments_bt, positions_bt, real_bt)
    bert, variables = Bert(ours.config), {"params": ours.params}
    hidden_btd = np.asarray(bert.apply(variables, *batch, method="encode"))
    mlm_btv, nsp_b12 = bert.apply(variables, *batch, positions_bt, np.zeros((b, 1), int))
    real = real_bt > 0
    return {
        "hidden": np.abs(hidden_btd - said.hidden_states[-1].numpy())[real].max(),
        "mlm": np.abs(np.asarray(mlm_btv) - said.prediction_logits.numpy())[real].max(),
        "nsp": np.abs(np.asarray(nsp_b12)[:, 0, ::-1] - said.seq_relationship_logits.numpy()).max(),
    }


def assert_close(found: dict[str, float]) -> None:
    print("largest differences:", {name: float(f"{value:.1e}") for name, value in found.items()})
    assert max(found.values()) < ATOL


# Their folders, read.


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    "hidden_act",
    ["gelu", "gelu_python", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"]
    + ["relu", "silu", "swish"],
)
def test_every_activation_and_tie(tmp_path: Path, pieces: Tokenizer, hidden_act: str, tied: bool) -> None:
    settings = TINY | {"hidden_act": hidden_act, "tie_word_embeddings": tied}
    model, tokenizer = their_folder(tmp_path, pieces, **settings)
    ours = load(tmp_path)
    assert ours.config.tie_word_embeddings is tied
    assert_close(differences(ours, model, tokenizer))
    for other in set(ACTIVATIONS) - {ours.config.hidden_act}:
        wrong = ours._replace(config=dataclasses.replace(ours.config, hidden_act=other))
        assert differences(wrong, model, tokenizer)["hidden"] > ATOL


@pytest.mark.parametrize("size, rules", [(BASE, UNCASED), (LARGE, CASED)], ids=["base uncased", "large cased"])
def test_their_sizes(tmp_path: Path, lines: list[str], size: dict[str, int], rules: Rules) -> None:
    pieces = Tokenizer.train(lines, min_frequency=2, rules=rules, vocab_size=3000)
    model, tokenizer = their_folder(tmp_path, pieces, **size)
    ours = load(tmp_path)
    assert ours.config.vocab_size == size["vocab_size"] > ours.tokenizer.vocab_size
    assert_close(differences(ours, model, tokenizer))
    encoder = Encoder(*ours)
    inputs = tokenizer(FIRSTS, SECONDS, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model.bert(**inputs).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(encoder.encode(FIRSTS, SECONDS, pooling="cls"), theirs, atol=ATOL)


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "BertForNextSentencePrediction"])
def test_models_with_other_heads(tmp_path: Path, pieces: Tokenizer, kind: str) -> None:
    model = getattr(transformers, kind)(transformers.BertConfig(vocab_size=pieces.vocab_size, **TINY)).eval()
    shake(model)
    model.save_pretrained(tmp_path)
    tokenizer = their_tokenizer(pieces, tmp_path)
    ours = load(tmp_path)
    lacking = {"BertModel": {"mlm", "nsp"}, "BertForMaskedLM": {"pooler", "nsp"}}.get(kind, {"mlm"})
    assert set(HEADS) - set(ours.params) == lacking
    inputs = tokenizer(FIRSTS, SECONDS, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = getattr(model, "bert", model)(**inputs).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(Encoder(*ours).encode(FIRSTS, SECONDS, pooling="cls"), theirs, atol=ATOL)


def test_their_tokens(tmp_path: Path, pieces: Tokenizer, lines: list[str]) -> None:
    theirs = their_tokenizer(pieces, tmp_path)
    for read in (load_tokenizer(tmp_path), load_tokenizer(tmp_path / "tokenizer.json")):
        assert read.encode_sentences(lines) == theirs(lines, add_special_tokens=False)["input_ids"]


# Our folders, read by them.


@pytest.fixture(scope="module")
def words(lines: list[str]) -> Tokenizer:
    return Tokenizer.train(lines, min_frequency=5)


def ours_written(folder: Path, tokenizer: Tokenizer, **settings: typing.Any) -> Pretrained:
    config = BertConfig(tokenizer.vocab_size, 24, 2, 3, 40, 64, **settings)
    ours = Pretrained(config, random_params(config), tokenizer)
    write_folder(*ours, folder, card="# A card\n")
    return ours


@pytest.mark.parametrize("tie_word_embeddings", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("hidden_act", ACTIVATIONS)
def test_they_compute_the_same(tmp_path: Path, pieces: Tokenizer, hidden_act: str, tie_word_embeddings: bool) -> None:
    """The textbook's untied head and its ReLU in the head among them. No weight is missing, and none is too many."""
    out = tmp_path / "out"
    ours = ours_written(out, pieces, hidden_act=hidden_act, tie_word_embeddings=tie_word_embeddings)
    model, info = transformers.BertForPreTraining.from_pretrained(out, output_loading_info=True)
    assert {name: found for name, found in info.items() if found} == {}
    assert_close(differences(ours, model.eval(), transformers.AutoTokenizer.from_pretrained(out)))
    _, info = transformers.AutoModelForMaskedLM.from_pretrained(out, output_loading_info=True)
    # Their model for masks alone has no place for the pooler and the NSP head, which Google's own folders have too.
    other_heads = {
        f"{name}.{leaf}" for name in ("bert.pooler.dense", "cls.seq_relationship") for leaf in ("weight", "bias")
    }
    assert set(info.pop("unexpected_keys")) == other_heads
    assert {name: found for name, found in info.items() if found} == {}


def same_tokens(folder: Path, tokenizer: Tokenizer, lines: Sequence[str]) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs(lines, add_special_tokens=False)["input_ids"] == tokenizer.encode_sentences(list(lines))
    roles = {role: getattr(theirs, role) for role in tokenizer.roles}
    assert roles == tokenizer.roles and theirs.model_max_length == 64


def test_they_number_pieces_alike(tmp_path: Path, pieces: Tokenizer, lines: list[str]) -> None:
    ours_written(tmp_path / "out", pieces)
    same_tokens(tmp_path / "out", pieces, lines)


def test_they_number_words_alike(tmp_path: Path, words: Tokenizer, lines: list[str]) -> None:
    ours_written(tmp_path / "out", words)
    same_tokens(tmp_path / "out", words, lines)


def test_special_tokens_of_any_name(tmp_path: Path, pieces: Tokenizer, lines: list[str]) -> None:
    odd = ("</s>", "<?>", "<s>", "<sep/>", "<m>")
    rules = pieces.rules._replace(special=odd)
    names = [*pieces.tokens(range(5, pieces.vocab_size)), *odd]
    tokenizer = Tokenizer.from_vocab({token: number for number, token in enumerate(names)}, rules)
    ours = ours_written(tmp_path / "out", tokenizer)
    same_tokens(tmp_path / "out", tokenizer, [*lines, "a <m> b</s>"])
    model = transformers.BertForPreTraining.from_pretrained(tmp_path / "out").eval()
    assert_close(differences(ours, model, transformers.AutoTokenizer.from_pretrained(tmp_path / "out")))


def test_sentence_vectors(tmp_path: Path, pieces: Tokenizer) -> None:
    ours = ours_written(tmp_path / "out", pieces)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    texts = [text.replace("[MASK]", "") for text in (*FIRSTS, *SECONDS)]
    np.testing.assert_allclose(Encoder(*ours).encode(texts), theirs.encode(texts), atol=ATOL)


def test_base_read_by_them(tmp_path: Path, lines: list[str]) -> None:
    pieces = Tokenizer.train(lines, min_frequency=2, rules=UNCASED, vocab_size=3000)
    config = dataclasses.replace(BertConfig.base(30522), hidden_act="relu", tie_word_embeddings=False)
    ours = Pretrained(config, random_params(config, noise=0.02), pieces)
    write_folder(*ours, tmp_path / "out", card="")
    model = transformers.BertForPreTraining.from_pretrained(tmp_path / "out").eval()
    assert_close(differences(ours, model, transformers.AutoTokenizer.from_pretrained(tmp_path / "out")))
