"""Tokenizers read from files: what they were, whatever their special tokens are called, or a refusal."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Engine
from tokenizers import models

from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.settings import ROLES_FILE
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

BERT = Path(__file__).parents[2] / "reference" / "bert"
ODD = ("</s>", "<unk>", "<s>", "<sep/>", "[mask]")
ODD_VOCABULARY = {token: 3 * number % 7 for number, token in enumerate([*ODD, "crane", "##s"])}


def write(tokenizer: Tokenizer, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    (folder / ROLES_FILE).write_text(json.dumps(tokenizer.roles), encoding="utf-8")


def test_a_file_gives_the_tokenizer_back(tmp_path):
    tokenizer = Tokenizer.train(["word0 word1 word1 word0 word2"], min_frequency=2)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_json(), encoding="utf-8")
    for loaded in (load_tokenizer(path), load_tokenizer(str(tmp_path))):
        assert loaded.to_json() == tokenizer.to_json()
        assert (loaded.rules, loaded.vocabulary) == (tokenizer.rules, tokenizer.vocabulary)
        sentences = ["Word0 nowhere WORD1", "  "]
        assert loaded.encode_sentences(sentences) == tokenizer.encode_sentences(sentences)
        assert loaded.split(sentences[0]) == tokenizer.split(sentences[0])


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
def test_special_tokens_of_any_name_and_number(tmp_path, kind):
    tokenizer = Tokenizer.from_vocab(ODD_VOCABULARY, Rules(kind, special=ODD))
    write(tokenizer, tmp_path)
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded.rules == tokenizer.rules
    assert loaded.vocabulary == tokenizer.vocabulary
    assert loaded.vocabulary[:6] == (7, 0, 3, 6, 2, 5)
    assert loaded.encode_sentences(["crane [mask] </s> CRANE"]) == [[1, 5, 0, 1]]
    (tmp_path / ROLES_FILE).unlink()
    with pytest.raises(BertjaxError, match="lacks the special tokens .UNK. .CLS. .SEP.;"):
        load_tokenizer(tmp_path)


GOOD = Tokenizer.train(["a b c"], min_frequency=1).to_json().encode()
FOREIGN = Engine(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2}, unk_token="[UNK]")).to_str().encode()


@pytest.mark.parametrize(
    "data, complaint",
    [
        (None, "No such file"),
        (b"", "is not a tokenizer that can be read"),
        (b"{}", "is not a tokenizer that can be read"),
        (b'{\n"version":\n\n1}', "is not a tokenizer that can be read"),
        (GOOD[: len(GOOD) // 2], "is not a tokenizer that can be read"),
        (b"\xff" + GOOD, "is not a tokenizer that can be read"),
        (FOREIGN, "of another kind (WordLevel, None, None)"),
        (GOOD.replace(b'"<cls>"', b'"<class>"'), "lacks the special tokens [UNK] [CLS] [SEP];"),
        (GOOD.replace(b'"unk_token": "<unk>"', b'"unk_token": "a"'), "unk_token='a' of its model would split"),
        (GOOD.replace(b'"Lowercase"', b'"NFC"'), "of another kind (WordLevel, NFC, WhitespaceSplit)"),
        (GOOD.replace(b'"<mask>": 4', b'"<mask>": 3'), "its 8 tokens have not each a number of its own"),
        (GOOD.replace(b'"<mask>": 4', b'"<mask>": 99999999'), "its 8 tokens have not each a number of its own"),
    ],
)
def test_a_damaged_or_foreign_file(tmp_path, data, complaint):
    path = tmp_path / "tokenizer.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BertjaxError) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value) and complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_vocabulary(tmp_path):
    with pytest.raises(BertjaxError, match="vocab.txt cannot be read.*give a folder with tokenizer.json or vocab.txt"):
        load_tokenizer(tmp_path)


def changed(part: str, **values: object):
    """Another tokenizer.json, where it tells all."""

    def change(folder: Path) -> None:
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        tree = json.loads((folder / "tokenizer.json").read_text())
        tree[part].update(values)
        (folder / "tokenizer.json").write_text(json.dumps(tree))

    return change


def only_text(**settings: object):
    """Folders of 2019 are so."""

    def change(folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    return change


@pytest.mark.parametrize(
    "change, complaint",
    [
        (changed("normalizer", clean_text=False), "clean_text=False of its normalizer would split"),
        (changed("model", continuing_subword_prefix="__"), "continuing_subword_prefix='__' of its model would split"),
        (changed("model", max_input_chars_per_word=9), "max_input_chars_per_word=9 of its model would split"),
        (changed("model", unk_token="of"), "unk_token='of' of its model would split"),
        (only_text(tokenizer_class="PreTrainedTokenizerFast"), "tokenizer_class='PreTrainedTokenizerFast' splits"),
        (only_text(split_special_tokens=True), "split_special_tokens=true is not supported"),
        (only_text(do_basic_tokenize=False), "do_basic_tokenize=False splits text otherwise"),
        (only_text(never_split=["a"]), "never_split=.'a'. splits text otherwise"),
        (only_text(tokenizer_class="BertJapaneseTokenizer"), "tokenizer_class='BertJapaneseTokenizer' splits"),
        (only_text(mask_token="[CLS]"), "the special tokens .PAD. .UNK. .CLS. .SEP. .CLS. two are the same"),
        (only_text(unk_token="[?]"), "vocab.txt: its vocabulary lacks .[?].,"),
        (only_text(cls_token=7), "7 is no token"),
    ],
)
def test_what_would_split_text_otherwise_is_refused(tmp_path, change, complaint):
    folder = Path(shutil.copytree(BERT, tmp_path / "bert"))
    change(folder)
    with pytest.raises(BertjaxError, match=complaint) as caught:
        load_tokenizer(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_what_leaves_the_tokens_as_they_are_may_be(tmp_path):
    whole, folder = load_tokenizer(BERT), Path(shutil.copytree(BERT, tmp_path / "bert"))
    assert whole.rules.special == BERTS_SPECIAL_TOKENS
    tree = json.loads((folder / "tokenizer.json").read_text())
    tree["added_tokens"][-1] |= {"lstrip": True, "rstrip": True}
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    changed("normalizer", strip_accents=True)(folder)
    assert load_tokenizer(folder).to_json() == whole.to_json()
    only_text(do_basic_tokenize=True, never_split=None, tokenizer_class="BertTokenizer")(folder)
    assert load_tokenizer(folder).to_json() == whole.to_json()
