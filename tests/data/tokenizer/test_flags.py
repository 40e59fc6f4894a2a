"""Flags of lower case, accents and Chinese characters: what each file says of them, and which one is believed.

What is right is said by the `tokenizers` library, from the flags that `transformers` 5 makes it of;
tests/interop/test_tokenizers.py asks that itself.
"""

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from odd_lines import odd_lines, odd_vocabulary
from refusals import refusal
from tokenizers import Tokenizer as Engine
from tokenizers import models, normalizers, pre_tokenizers

from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS

ABSENT = object()
FLAGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")


def theirs(lowercase: bool = True, strip_accents: bool | None = None, chinese: bool = True) -> Engine:
    numbers = {token: number for number, token in enumerate(odd_vocabulary())}
    engine = Engine(models.WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=100))
    engine.normalizer = normalizers.BertNormalizer(True, chinese, strip_accents, lowercase)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.add_special_tokens(list(BERTS_SPECIAL_TOKENS))
    return engine


def folder_of(folder: Path, engine: Engine | None, kind: str | None = "BertTokenizer", **flags: Any) -> Path:
    """A Hugging Face folder's files: vocab.txt, or tokenizer.json, and tokenizer_config.json."""
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 2000}')
    settings = {"tokenizer_class": kind, **flags}
    settings = {key: value for key, value in settings.items() if value is not ABSENT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if engine is None:
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in odd_vocabulary()), encoding="utf-8")
    else:
        (folder / "tokenizer.json").write_text(engine.to_str(), encoding="utf-8")
    return folder


@functools.cache
def expected(lowercase: bool = True, strip_accents: bool | None = None, chinese: bool = True) -> list[list[int]]:
    """The ids of the odd lines."""
    engine = theirs(lowercase, strip_accents, chinese)
    return [encoding.ids for encoding in engine.encode_batch(list(odd_lines()), add_special_tokens=False)]


def read(path: Path) -> list[list[int]]:
    return load_tokenizer(path).encode_sentences(list(odd_lines()))


def test_the_lines_tell_the_flags_apart() -> None:
    made = [expected(*flags) for flags in itertools.product((True, False), repeat=3)]
    unlike = [sum(map(list.__ne__, *pair)) for pair in itertools.combinations(made, 2)]
    assert len(set(odd_lines())) > 400 and min(unlike) > 60


def test_lines_become_what_their_tokens_become(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder_of(tmp_path, None))
    split = tokenizer.split_all(list(odd_lines()))
    assert [tokenizer.ids(words) for words in split] == expected()
    assert split == [tokenizer.tokens(ids) for ids in expected()]


@pytest.mark.parametrize("lower", [ABSENT, True, False])
@pytest.mark.parametrize("accents", [ABSENT, None, True, False])
@pytest.mark.parametrize("chinese", [ABSENT, True, False])
def test_a_vocab_txt_goes_by_the_settings(tmp_path: Path, lower: Any, accents: Any, chinese: Any) -> None:
    folder = folder_of(tmp_path, None, **dict(zip(FLAGS, (lower, accents, chinese), strict=True)))
    accents = None if accents is ABSENT else accents
    assert read(folder) == expected(lower is not False, accents, chinese is not False)


@pytest.mark.parametrize("kind", ["BertTokenizer", "BertTokenizerFast", "ElectraTokenizer", None])
@pytest.mark.filterwarnings("ignore:.*counts for nothing")
def test_berts_class_goes_by_the_settings_whatever_the_json_says(tmp_path: Path, kind: str | None) -> None:
    cased = theirs(False, True, False)
    assert read(folder_of(tmp_path, cased, kind)) == expected()
    assert read(folder_of(tmp_path, cased, kind, strip_accents=False)) == expected(True, False)
    assert read(folder_of(tmp_path, theirs(), kind, do_lower_case=False)) == expected(False)


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "SomethingElse"])
@pytest.mark.parametrize("flags", [(True, None, True), (False, None, False), (False, True, True), (True, False, True)])
def test_other_classes_go_by_the_json(tmp_path: Path, kind: str, flags: tuple[Any, ...]) -> None:
    against = dict(zip(FLAGS, (not flags[0], True, not flags[2]), strict=True))
    assert read(folder_of(tmp_path, theirs(*flags), kind, **against)) == expected(*flags)


def test_a_tokenizer_json_alone_is_believed(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(theirs(False, None, False).to_str(), encoding="utf-8")
    assert read(tmp_path / "tokenizer.json") == expected(False, None, False)


def test_files_that_disagree_are_told_of(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, theirs(False))
    with pytest.warns(UserWarning, match=r"tokenizer.json: .*lowercase=False of its normalizer counts for nothing"):
        load_tokenizer(folder)


@pytest.mark.parametrize("flag, value", [("do_lower_case", None), ("do_lower_case", 0), ("strip_accents", "no")])
def test_what_is_no_flag(tmp_path: Path, flag: str, value: Any) -> None:
    folder = folder_of(tmp_path, None, **{flag: value})
    assert f"{flag}={json.dumps(value)} is neither true nor false" in refusal(load_tokenizer, folder)
