"""Tokenizers' files of written folders: each tool reads the same tokens from them, whichever it looks at."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Added, Rules
from bertjax.data.tokenizer.template import A, B, Frame, Template
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.folder import write_folder
from bertjax.models.bert import Bert

CONFIG = BertConfig(vocab_size=60, hidden_size=4, num_layers=1, num_heads=1, intermediate_size=4, max_position=8)
WORDS = Tokenizer.train(["a crane is flying Over it"], min_frequency=1)
RULES = Rules("wordpiece", special=BERTS_SPECIAL_TOKENS)
PIECES = Tokenizer.train(["a crane is flying Over it"], min_frequency=1, rules=RULES, vocab_size=40)

ADDED = (*map(Added, BERTS_SPECIAL_TOKENS), Added("<boat>"), Added("Neu", special=False, normalized=True))


@functools.cache
def params() -> dict[str, Any]:
    return jax.tree.map(np.asarray, drawn_params(Bert(CONFIG)))


def written(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Their settings of it."""
    write_folder(CONFIG, params(), tokenizer, folder, card="")
    return json.loads((folder / "tokenizer_config.json").read_text())


@pytest.mark.parametrize("flags", [(True, True, True), (True, False, True), (False, False, False)])
def test_pieces_are_written_for_every_class_of_theirs(tmp_path: Path, flags: tuple[bool, ...]) -> None:
    tokenizer = Tokenizer.from_vocab(PIECES.token_ids, Rules("wordpiece", *flags, special=BERTS_SPECIAL_TOKENS))
    settings = written(tmp_path / "out", tokenizer)
    keys = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    assert tuple(settings[key] for key in keys) == flags and settings["tokenizer_class"] == "BertTokenizer"
    assert load_tokenizer(tmp_path / "out").rules == tokenizer.rules
    (tmp_path / "out" / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path / "out").to_json() == tokenizer.to_json()


def test_words_are_written_for_the_class_that_reads_all_of_tokenizer_json(tmp_path: Path) -> None:
    settings = written(tmp_path / "out", WORDS)
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast" and settings["strip_accents"] is False
    assert not (tmp_path / "out" / "vocab.txt").exists()  # other tools would take words for pieces


def test_added_tokens_are_written(tmp_path: Path) -> None:
    vocabulary = {token: number for number, token in enumerate([*BERTS_SPECIAL_TOKENS, "a", "b"])}
    tokenizer = Tokenizer.from_vocab(vocabulary, RULES._replace(added=ADDED))
    settings = written(tmp_path / "out", tokenizer)
    assert settings["additional_special_tokens"] == ["<boat>"] and [*settings["added_tokens_decoder"]] == [*"0123478"]
    assert (tmp_path / "out" / "vocab.txt").read_text().split("\n") == [*BERTS_SPECIAL_TOKENS, "a", "b", ""]
    for unused in ("special_tokens_map.json", "tokenizer.json"):
        read = load_tokenizer(tmp_path / "out")
        assert (read.rules, read.vocabulary) == (tokenizer.rules, tokenizer.vocabulary)
        assert read.encode_sentences(["neu<boat>bNEU a"]) == [[8, 7, 6, 8, 5]]
        (tmp_path / "out" / unused).unlink()


def test_numbers_without_a_token_are_written(tmp_path: Path) -> None:
    """Their vocab.txt had a line twice, or a blank one."""
    numbers = [*range(5), 6, 9, 7]
    vocabulary = dict(zip([*BERTS_SPECIAL_TOKENS, "a", "b", ""], numbers, strict=True))
    tokenizer = Tokenizer.from_vocab(vocabulary, RULES)
    written(tmp_path / "out", tokenizer)
    for _ in range(2):
        read = load_tokenizer(tmp_path / "out")
        assert read.token_ids == vocabulary and read.vocab_size == 10
        assert read.tokens(range(5, 10)) == ["[UNK]", "a", "", "[UNK]", "b"]
        (tmp_path / "out" / "tokenizer.json").unlink(missing_ok=True)


def test_a_template_is_written(tmp_path: Path) -> None:
    template = Template(Frame((2, 5, A), 3), Frame((2, A, B, 3), 2), keep_end=True)
    tokenizer = PIECES.with_template(template)
    assert written(tmp_path / "out", tokenizer)["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert load_tokenizer(tmp_path / "out").template == template
    assert load_tokenizer(tmp_path / "out").with_template(None).template == PIECES.template
