"""Tokenizers' files as people have them: the token ids, segments and cuts that `transformers` makes of texts.

Its answers are in tests/reference/tokens.json, made by make_tokens.py beside it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.inference.inputs import Reader, TokenIds

CASES = json.loads((Path(__file__).parents[1] / "reference" / "tokens.json").read_text(encoding="utf-8"))
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
