"""What sentence-transformers keeps beside a model: vectors as it makes them, by numpy; and what we cannot compute.

tests/interop compares with the library itself.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from bertjax.errors import BertjaxError
from bertjax.hub.folder import read_folder
from bertjax.hub.sentence_transformers import SentenceSettings, read_settings
from bertjax.inference.encode_file import encode_file
from bertjax.inference.encoder import Encoder
from bertjax.models.sentence import POOLINGS

pytestmark = pytest.mark.usefixtures("two_devices")
BERT = Path(__file__).parents[1] / "reference" / "bert"  # of vectors of 8
TEXTS: list[Any] = ["a crane is flying", "", ("it came", "he just left"), "over"]
KEYS = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens"}
KEYS |= {"weightedmean": "weightedmean_tokens", "lasttoken": "lasttoken"}
V6 = "sentence_transformers.sentence_transformer.modules"
Content = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BERT, tmp_path / "bert"))


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def pooling(*kinds: str) -> Content:
    """As versions up to 5 write it."""
    return {"word_embedding_dimension": 8} | {f"pooling_mode_{key}": kind in kinds for kind, key in KEYS.items()}


def write_modules(folder: Path, content: Content, *layers: tuple[str, Content, dict[str, np.ndarray]]) -> None:
    """Puts modules beside the model: pooling with these settings, then layers."""
    listed = [("Transformer", ""), ("Pooling", "1_Pooling")]
    for number, (kind, settings, tensors) in enumerate(layers, 2):
        listed.append((kind, f"{number}_{kind}"))
        write(folder / f"{number}_{kind}" / "config.json", settings)
        if tensors:
            save_file(tensors, folder / f"{number}_{kind}" / "model.safetensors")
    write(folder / "1_Pooling" / "config.json", content)
    write(folder / "modules.json", [{"type": f"{V6}.some.{kind}", "path": path} for kind, path in listed])


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 1, shape).astype(np.float32)


def dense(size: int, out: int, activation: str, **more: Any) -> tuple[str, Content, dict[str, np.ndarray]]:
    settings = {"in_features": size, "out_features": out, "bias": True, "activation_function": activation}
    return "Dense", settings | more, {"linear.weight": random(out, size), "linear.bias": random(out)}


@pytest.fixture(scope="module")
def plain() -> Encoder:
    """The model alone."""
    return Encoder.load(BERT)


@pytest.fixture(scope="module")
def tokens(plain: Encoder) -> list[np.ndarray]:
    return plain.encode(TEXTS, pooling="tokens")


def pooled(kind: str, x_td: np.ndarray) -> np.ndarray:
    weights_t1 = np.arange(1, len(x_td) + 1)[:, None]
    made = {"cls": x_td[0], "max": x_td.max(0), "mean": x_td.mean(0), "lasttoken": x_td[-1]}
    made |= {"mean_sqrt_len_tokens": x_td.sum(0) / len(x_td) ** 0.5}
    return (made | {"weightedmean": (weights_t1 * x_td).sum(0) / weights_t1.sum()})[kind]


@pytest.mark.parametrize("kind", POOLINGS)
def test_pooling_that_is_asked_for(plain: Encoder, tokens: list[np.ndarray], kind: Any) -> None:
    expected = [pooled(kind, x_td) for x_td in tokens]
    np.testing.assert_allclose(plain.encode(TEXTS, pooling=kind), expected, atol=1e-5)


def test_what_the_folder_says_is_followed_and_what_is_asked_for_wins(
    folder: Path, plain: Encoder, tokens: list[np.ndarray]
) -> None:
    kinds = ("lasttoken", "cls")
    norm = ("LayerNorm", {"dimension": 16}, {"norm.weight": random(16), "norm.bias": random(16) + 1})
    first = dense(16, 16, "torch.nn.modules.activation.Sigmoid", use_residual=True)
    last, normalize = dense(16, 3, "torch.nn.modules.linear.Identity"), ("Normalize", {}, {})
    content = {"embedding_dimension": 8, "pooling_mode": kinds}
    write_modules(folder, content, norm, first, ("Dropout", {"dropout": 0.5}, {}), last, normalize)
    x_ne = np.stack([np.concatenate([pooled(kind, x_td) for kind in kinds]) for x_td in tokens])
    x_ne = (x_ne - x_ne.mean(1, keepdims=True)) / np.sqrt(x_ne.var(1, keepdims=True) + 1e-5)
    x_ne = x_ne * norm[2]["norm.weight"] + norm[2]["norm.bias"]
    x_ne = x_ne + 1 / (1 + np.exp(-x_ne @ first[2]["linear.weight"].T - first[2]["linear.bias"]))
    x_ne = x_ne @ last[2]["linear.weight"].T + last[2]["linear.bias"]
    units_ne = x_ne / np.linalg.norm(x_ne, axis=1, keepdims=True)
    encoder = Encoder.load(folder)
    np.testing.assert_allclose(encoder.encode(TEXTS), units_ne, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS, normalize=False), x_ne, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(TEXTS, pooling="mean"), plain.encode(TEXTS))
    np.testing.assert_allclose(encoder.encode(TEXTS, pooling="tokens")[2], tokens[2], atol=1e-6)
    assert encoder.encode([]).shape == (0, 3) and encoder.vector_size("mean") == 8
    assert len({encoder.fingerprint(), plain.fingerprint()}) == 2
    lines = folder / "lines.txt"
    lines.write_text("\n".join("\t".join(text) if isinstance(text, tuple) else text for text in TEXTS) + "\n")
    encode_file(encoder, str(lines), folder / "vectors.npy")
    np.testing.assert_allclose(np.load(folder / "vectors.npy"), units_ne, atol=1e-5)


def test_a_longest_text(folder: Path, plain: Encoder) -> None:
    write_modules(folder, pooling("cls"))
    write(folder / "sentence_bert_config.json", {"max_seq_length": 5, "do_lower_case": True})
    encoder, long = Encoder.load(folder), "a crane is flying over"
    with pytest.raises(BertjaxError, match="6 words, but only 3 fit .* the 5 tokens that the folder sets"):
        encoder.encode(long)
    np.testing.assert_allclose(
        encoder.encode(long, truncate=True), plain.encode("a crane is", pooling="cls"), atol=1e-6
    )
    cut = encoder.encode(long, "he just left", truncate=True)
    np.testing.assert_allclose(cut, plain.encode("a", "he", pooling="cls"), atol=1e-6)
    assert encoder.encode(long, pooling="tokens")[0].shape == (8, 8)  # asked for, it is of the model alone


def test_prompts(folder: Path, plain: Encoder) -> None:
    write_modules(folder, pooling("mean") | {"include_prompt": False})
    prompts = {"prompts": {"query": "a crane ", "none": None}, "default_prompt_name": "query"}
    write(folder / "config_sentence_transformers.json", prompts | {"truncate_dim": 5})
    encoder = Encoder.load(folder)
    assert encoder.sentence.prompts == {"query": "a crane ", "document": "", "none": ""}
    for texts, whole in ((["over"], ["a crane over"]), ([("over", "it")], [("a crane over", "it")])):
        expected = plain.encode(whole, pooling="tokens")[0][3:].mean(0)[:5]  # <cls> a crane
        np.testing.assert_allclose(encoder.encode(texts)[0], expected, atol=1e-6)
        (streamed,) = encoder.stream([texts])
        np.testing.assert_allclose(streamed[0], expected, atol=1e-6)
    np.testing.assert_allclose(encoder.encode("over", prompt=""), plain.encode("over")[:, :5], atol=1e-6)
    np.testing.assert_array_equal(plain.encode("over", prompt="a crane "), plain.encode("a crane over"))
    np.testing.assert_allclose(encoder.encode("over", pooling="mean"), plain.encode("over"), atol=1e-6)
    with pytest.raises(BertjaxError, match="the prompt is of type int"):
        encoder.encode("over", prompt=3)  # type: ignore[call-overload]


def test_a_folder_that_is_written_anew_keeps_it_all(folder: Path) -> None:
    from bertjax.cli.main import main

    layers = [("LayerNorm", {"dimension": 16}, {"norm.weight": random(16), "norm.bias": random(16)})]
    layers += [("Normalize", {}, {}), dense(16, 3, "torch.nn.modules.activation.GELU"), ("Normalize", {}, {})]
    write_modules(folder, pooling("cls", "weightedmean") | {"include_prompt": False}, *layers)
    prompts = {"prompts": {"query": "a crane "}, "default_prompt_name": "query"}
    write(folder / "config_sentence_transformers.json", prompts)
    (folder / "README.md").write_text("# Its card\n")
    out = folder.parent / "out"
    assert main(["export", str(folder), str(out)]) == 0
    one, other = (read_settings(place, 8, lowercases=True) for place in (folder, out))
    assert one._replace(layers=(), max_length=20) == other._replace(layers=())
    assert jax.tree.structure(one.layers) == jax.tree.structure(other.layers)
    jax.tree.map(np.testing.assert_array_equal, one.layers, other.layers)
    assert (out / "README.md").read_text() == "# Its card\n"
    jax.tree.map(np.testing.assert_array_equal, read_folder(out).params, read_folder(folder).params)


def test_without_modules_it_is_the_mean(folder: Path) -> None:
    assert read_settings(folder, 8, lowercases=True) == SentenceSettings()
    write_modules(folder, pooling())
    write(folder / "sentence_bert_config.json", {"max_seq_length": None})
    write(folder / "tokenizer_config.json", {"model_max_length": 1e30})
    assert read_settings(folder, 8, lowercases=False)._replace(prompts={}) == SentenceSettings(
        max_length=2**31 - 1, prompts={}
    )


def retype(*types: str) -> Callable[[Path], None]:
    listed = [{"type": type_, "path": f"{n}_Dense" if n > 1 else "1_Pooling" * n} for n, type_ in enumerate(types)]
    return lambda folder: write(folder / "modules.json", listed)


def of_dense(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: write(folder / "2_Dense/config.json", dense(8, 3, "torch.nn.Tanh")[1] | changes)


def of_pooling(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: write(folder / "1_Pooling/config.json", pooling("mean") | changes)


def of_settings(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: write(folder / "config_sentence_transformers.json", changes)


def of_transformer(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: write(folder / "sentence_bert_config.json", changes)


def of_tensors(**tensors: np.ndarray) -> Callable[[Path], None]:
    whole = dense(8, 3, "")[2] | {f"linear.{name}": tensor for name, tensor in tensors.items()}
    return lambda folder: save_file(whole, folder / "2_Dense/model.safetensors")


OLD = "sentence_transformers.models"


@pytest.mark.parametrize(
    "change, complaint",
    [
        (
            retype(f"{OLD}.Transformer", f"{OLD}.Pooling", f"{OLD}.CNN"),
            f"module 2 is {OLD}.CNN; after Pooling only Dense,",
        ),
        (
            retype(f"{OLD}.Transformer", f"{OLD}.WordWeights"),
            f"begins with {OLD}.Transformer and {OLD}.WordWeights; only",
        ),
        (retype("custom.Transformer", f"{OLD}.Pooling"), "begins with custom.Transformer and"),
        (retype(), "begins with nothing"),
        (
            retype(f"{OLD}.Transformer", f"{OLD}.Pooling", "own.Dense"),
            "module 2 is own.Dense; .* modules.json the model",
        ),
        (lambda folder: write(folder / "modules.json", [{"type": "x", "path": "../x"}]), "outside the folder"),
        (lambda folder: write(folder / "modules.json", [3]), "does not tell its modules"),
        (
            of_dense(activation_function="torch.nn.Mish"),
            "activation_function='torch.nn.Mish' is not supported; only Id",
        ),
        (of_dense(activation_function="my.Tanh"), "activation_function='my.Tanh' is not supported"),
        (of_dense(activation_function=None), "activation_function=None is not supported"),
        (of_dense(module_input_name="token_embeddings"), "module_input_name='token_embeddings' is not supported"),
        (of_dense(in_features=9), "in_features=9 is not 8"),
        (of_dense(out_features="3"), "out_features='3' is no size"),
        (of_dense(bias=False), "2_Dense has tensors {.*linear.bias.*}, and {.* are needed"),
        (of_tensors(weight=random(8, 3)), r"has tensors .*\(8, 3\).*, and .*\(3, 8\).* are needed"),
        (of_tensors(bias=np.full(3, np.nan)), "2_Dense: linear.bias has 3 of 3 numbers that are NaN or infinite"),
        (lambda folder: (folder / "2_Dense/model.safetensors").rename(folder / "2_Dense/a.bin"), "a.bin is a pickle"),
        (of_pooling(word_embedding_dimension=16), "is for vectors of 16 numbers, and the model's have 8"),
        (of_pooling(pooling_mode="attention"), "pooling_mode='attention' is not supported; only cls, max, mean"),
        (of_pooling(pooling_mode=["cls", 3]), "pooling_mode=3 is not supported"),
        (of_pooling(pooling_mode_attention=True), "pooling_mode_attention is not supported"),
        (of_settings(prompts={"query": 3}), "prompts={'query': 3} are not texts by name"),
        (of_settings(default_prompt_name="ask"), "default_prompt_name='ask' is none of query, document"),
        (of_settings(truncate_dim=0), "truncate_dim=0 is no size"),
        (of_transformer(max_seq_length="128"), "max_seq_length='128' is no number of tokens"),
        (of_transformer(max_seq_length=2), "max_seq_length=2 is no number of tokens, 3 or more"),
        (of_transformer(do_lower_case=True), "do_lower_case=True is not supported; only False"),
        (of_transformer(transformer_task="fill-mask"), "transformer_task='fill-mask' is not supported"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(
    folder: Path, change: Callable[[Path], None], complaint: str
) -> None:
    write_modules(folder, pooling("mean"), dense(8, 3, "torch.nn.Tanh"))
    read_settings(folder, 8, lowercases=False)
    change(folder)
    with pytest.raises(BertjaxError, match=complaint) as caught:
        read_settings(folder, 8, lowercases=False)
    assert str(folder) in str(caught.value)
