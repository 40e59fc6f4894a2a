"""Words of one's own in tokenizers of every kind: one token each, and nothing else is read otherwise."""

import json
from pathlib import Path

import pytest
from refusals import refusal
from whole_tokenizers import LINES, ROLES, bpe, unigram, write

from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.own_words import with_words_of
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.settings import ROLES_FILE
from bertjax.data.tokenizer.tokenizer import Tokenizer

WORDS = ["covid", "h\u00e4user", "c++", "crane", "covid"]  # the fourth is in the vocabulary
RULES = Rules("wordpiece", special=BERTS_SPECIAL_TOKENS)


def made(kind: str, folder: Path) -> Tokenizer:
    if kind == "bpe":
        return load_tokenizer(write(folder, bpe(), tokenizer_class="RobertaTokenizer", **ROLES))
    if kind == "unigram":
        return load_tokenizer(write(folder, unigram(), tokenizer_class="XLMRobertaTokenizer", **ROLES))
    how = {} if kind == "word" else {"rules": RULES, "vocab_size": 80}
    return Tokenizer.train(LINES, min_frequency=1, **how)


@pytest.mark.parametrize("kind", ["word", "wordpiece", "bpe", "unigram"])
def test_each_is_one_token_after_the_others(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\ufeff" + "\n\n ".join(WORDS), encoding="utf-8")
    old = made(kind, tmp_path / "old")
    new = with_words_of(old, file)
    added = new.tokens(range(old.vocab_size, new.vocab_size))
    assert added == ["covid", "h\u00e4user", "c++"]
    text = "a covid is flying c++ h\u00e4user just"
    ids = new.ids(new.split(text))
    assert set(added) <= set(new.words(ids)) and new.text(ids).replace("<unk>", "just").endswith("c++ h\u00e4user just")
    # All else, longer words among them, is read as it was.
    for line in [*LINES, "covids anticovid"]:
        assert new.encode_sentences([line]) == old.encode_sentences([line])
    assert new.template == old.template
    # It is kept in a run's folder.
    run = tmp_path / "run"
    run.mkdir()
    (run / "tokenizer.json").write_text(new.to_run_json(), encoding="utf-8")
    (run / ROLES_FILE).write_text(json.dumps(new.roles))
    again = load_tokenizer(run)
    assert again.encode_sentences([text, *LINES]) == new.encode_sentences([text, *LINES])
    assert (again.vocabulary, again.rules) == (new.vocabulary, new.rules)
    # Once more there is nothing to add.
    assert with_words_of(again, file).vocab_size == new.vocab_size


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "words.txt cannot be read: No such file or directory; give a file with one word a line"),
        (b"\xff\xfe", "words.txt cannot be read: it is not UTF-8 text"),
        (b" \n\n", "words.txt has no words"),
        (b"covid\n\nnew york\n", "words.txt, line 3: 'new york' is no single word; give one a line"),
        (b"a\n\xef\xbf\xbd\n", "line 2: '\ufffd' is read as nothing by this tokenizer whatever it has"),
    ],
)
def test_what_is_no_list_of_words_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / "words.txt").write_bytes(content)
    assert complaint in refusal(with_words_of, made("wordpiece", tmp_path), tmp_path / "words.txt")


def test_numbers_that_are_left_out_take_no_words(tmp_path: Path) -> None:
    numbers = {token: number for number, token in enumerate(BERTS_SPECIAL_TOKENS)} | {"a": 9}
    (tmp_path / "words.txt").write_text("covid")
    complaint = refusal(with_words_of, Tokenizer.from_vocab(numbers, RULES), tmp_path / "words.txt")
    assert "leaves out numbers, and takes no more words" in complaint
