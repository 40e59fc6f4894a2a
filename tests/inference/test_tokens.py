"""Tokenizers' files as people have them: the token ids, segments and cuts that `transformers` makes of texts.

Its answers are in tests/reference/tokens.json, made by make_tokens.py beside it.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusal
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer as Engine
from tokenizers.processors import TemplateProcessing

from bertjax.data.reader import Reader, TokenIds
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.inference.encoder import Encoder

REFERENCE = Path(__file__).parents[1] / "reference"
BERT = REFERENCE / "bert"
CASES = json.loads((REFERENCE / "tokens.json").read_text(encoding="utf-8"))
SHORT = 8  # tokens


def load(folder: Path, files: dict[str, Any]) -> Tokenizer:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return load_tokenizer(folder)


def read(tokenizer: Tokenizer, texts: list[list[str]], length: int = 100) -> list[TokenIds]:
    items = [(first, *more) if more else (first, None) for first, *more in texts]
    return Reader(tokenizer, length, truncate=True).read_all(items, "text {}".format)


def segments(text: TokenIds) -> list[int]:
    return [int(place >= text.len_a) for place in range(len(text.ids))]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
@pytest.mark.filterwarnings("ignore:.*counts for nothing")
def test_texts_become_what_they_become_there(tmp_path: Path, case: dict[str, Any]) -> None:
    tokenizer = load(tmp_path, case["files"])
    assert tokenizer.vocab_size <= case["files"]["config.json"]["vocab_size"]
    found = read(tokenizer, case["texts"])
    assert [text.ids for text in found] == case["ids"]
    assert list(map(segments, found)) == case["segments"]
    assert [text.ids for text in read(tokenizer, case["texts"], SHORT)] == case["short"]


# What an encoder makes of them.


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A BERT of `transformers`; its words are "a crane is fly ##ing …"."""
    return Path(shutil.copytree(BERT, tmp_path / "bert"))


def change_json(bert: Path, template: str, **settings: Any) -> Encoder:
    """An encoder whose tokenizer.json tells all, with this around one text."""
    engine = Engine.from_file(str(bert / "tokenizer.json"))
    special = [(name, engine.token_to_id(name)) for name in ("[CLS]", "of")]
    engine.post_processor = TemplateProcessing(single=template, pair=f"{template} $B", special_tokens=special)
    engine.save(str(bert / "tokenizer.json"))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs, **settings}
    (bert / "tokenizer_config.json").write_text(json.dumps(settings))
    return Encoder.load(bert)


def test_a_vocabulary_without_a_mask_encodes(bert: Path) -> None:
    whole = Encoder.load(bert).encode("a crane is flying")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bert / name).unlink()
    (bert / "vocab.txt").write_text((bert / "vocab.txt").read_text().replace("[MASK]", "[unused]"))
    rewritten = json.loads((bert / "config.json").read_text()) | {"vocab_size": 23}
    tensors = load_file(bert / "model.safetensors")
    for name, tensor in tensors.items():
        if len(tensor) == 32:
            tensors[name] = tensor[:23]
    save_file(tensors, bert / "model.safetensors")
    (bert / "config.json").write_text(json.dumps(rewritten))
    encoder = Encoder.load(bert)
    np.testing.assert_allclose(encoder.encode("a crane is flying"), whole, atol=1e-6)
    assert "vocabulary has no mask" in refusal(encoder.fill_mask, "a [MASK] is flying")


def test_words_are_found_where_the_template_puts_them(bert: Path) -> None:
    encoder = change_json(bert, "[CLS] of $A", truncation_side="left")
    texts = ["a crane is flying", "a " * 30 + "crane is", "crane " + "a " * 30]
    uses = encoder.word_vectors("crane", texts, truncate=True)
    assert [(use.text, use.position) for use in uses] == [(0, 3), (1, 18)]
    for use in uses:
        (tokens_td,) = encoder.encode([texts[use.text]], pooling="tokens", truncate=True)
        np.testing.assert_allclose(use.vector_d, tokens_td[use.position], rtol=1e-4, atol=1e-5)
    assert encoder.tokens_read(["a", "crane"], ["over"]) == ["[CLS]", "of", "a", "crane", "over"]


def test_a_text_without_any_token(bert: Path) -> None:
    encoder = change_json(bert, "$A")
    assert encoder.encode(["a", "a crane"]).shape == (2, 8)
    assert refusal(encoder.encode, ["a", ""]).startswith("text 1 has no tokens, and this model has no special ones")


def test_templates_are_told_apart(bert: Path) -> None:
    prints = {Encoder.load(bert).fingerprint()}
    prints |= {change_json(bert, template).fingerprint() for template in ("[CLS] $A", "[CLS] of $A")}
    assert len(prints) == 3


@pytest.mark.parametrize(
    "single, pair, complaint",
    [
        ("$A $A", "$A $B", "does not set each text once"),
        ("$A:1 [CLS]", "$A $B", r"gives the segments \[1, 0\]; only 0 and after it 1"),
        ("$A", "$A [CLS]:2 $B:2", r"gives the segments \[0, 2, 2\]; only 0 and after it 1"),
    ],
)
def test_what_is_no_template_of_ours(tmp_path: Path, single: str, pair: str, complaint: str) -> None:
    engine = Engine.from_file(str(BERT / "tokenizer.json"))
    engine.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=[("[CLS]", 3)])
    engine.save(str(tmp_path / "tokenizer.json"))
    assert re.search(complaint, refusal(load_tokenizer, tmp_path))


@pytest.mark.parametrize(
    "files, complaint",
    [
        ({"added_tokens.json": {"neu": 40}}, "'neu' has the number 40, but by its place after the vocabulary 23"),
        ({"added_tokens.json": {"neu": "x"}}, "its added tokens have no numbers"),
        ({"added_tokens.json": {"": 23}}, "{'content': '', 'special': False} is no token"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"23": 7}}}, "7 is no token"),
        ({"tokenizer_config.json": {"added_tokens_decoder": ["neu"]}}, "its added tokens have no numbers"),
        ({"tokenizer_config.json": {"additional_special_tokens": "neu"}}, "additional_special_tokens is no list"),
        ({"tokenizer_config.json": {"extra_special_tokens": [None]}}, "None is no token"),
    ],
)
def test_what_is_no_added_token(bert: Path, files: dict[str, Any], complaint: str) -> None:
    (bert / "tokenizer.json").unlink()
    (bert / "tokenizer_config.json").unlink()
    for name, content in files.items():
        (bert / name).write_text(json.dumps(content))
    assert complaint in refusal(load_tokenizer, bert)
