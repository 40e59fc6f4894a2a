"""Against the tokenizers of transformers itself: their reading of files, ours, and their reading of what we write."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from drawn_params import drawn_params
from odd_lines import odd_lines, odd_vocabulary
from whole_tokenizers import ROLES, bpe, framed, pieces, unigram, write

from bertjax.config import BertConfig
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.own_words import with_words_of
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Added, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.folder import write_folder
from bertjax.models.bert import Bert

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
transformers = pytest.importorskip("transformers", reason="it is not installed; make test-interop installs it")
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

REFERENCE = Path(__file__).parents[1] / "reference"
LINES = list(odd_lines())
VOCABULARY = {token: number for number, token in enumerate(odd_vocabulary())}
FLAGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
SETTINGS = [
    {key: value for key, value in zip(FLAGS, values, strict=True) if value != "absent"}
    for values in itertools.product(("absent", True, False), ("absent", None, True, False), ("absent", True, False))
]
ADDED = (*map(Added, BERTS_SPECIAL_TOKENS), Added("cran"), Added("STRASSE", special=False, normalized=True))
# The class written in Python composes accents and lower-cases whole words, of which the others do neither.
IN_PYTHON = ("\u0301", "\u0323", "\u0307", "ΣΑΣ")
RULES = {
    "uncased": Rules("wordpiece", special=BERTS_SPECIAL_TOKENS),
    "cased": Rules("wordpiece", False, False, special=BERTS_SPECIAL_TOKENS),
    "accents stay": Rules("wordpiece", True, False, special=BERTS_SPECIAL_TOKENS),
    "Chinese whole": Rules("wordpiece", True, True, False, special=BERTS_SPECIAL_TOKENS),
    "added": Rules("wordpiece", special=BERTS_SPECIAL_TOKENS, added=ADDED),
}


def theirs(read: Any) -> list[list[int]]:
    return [read(line, add_special_tokens=False)["input_ids"] for line in LINES]


def test_what_is_kept_of_their_answers_is_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REFERENCE))
    import make_tokens

    monkeypatch.setattr(make_tokens, "FILE", tmp_path / "tokens.json")
    make_tokens.main()
    kept = (REFERENCE / "tokens.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "tokens.json").read_text(encoding="utf-8")) == json.loads(kept)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_vocab_txt_with_flags(tmp_path: Path, settings: dict[str, bool | None]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(VOCABULARY)}))
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    expected = theirs(transformers.AutoTokenizer.from_pretrained(tmp_path))
    assert load_tokenizer(tmp_path).encode_sentences(LINES) == expected


@pytest.mark.parametrize("kind", ["BertTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("flags", [{}, {"do_lower_case": False}, {"strip_accents": False}], ids=str)
@pytest.mark.parametrize("written", ["uncased", "cased", "accents stay"])
@pytest.mark.filterwarnings("ignore:.*counts for nothing")
def test_a_tokenizer_json_beside_flags(tmp_path: Path, kind: str, flags: dict[str, bool], written: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(VOCABULARY)}))
    tokenizer = Tokenizer.from_vocab(VOCABULARY, RULES[written])
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_hub_json(), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, **flags, **tokenizer.roles}))
    expected = theirs(transformers.AutoTokenizer.from_pretrained(tmp_path))
    assert load_tokenizer(tmp_path).encode_sentences(LINES) == expected


@pytest.mark.parametrize("name", RULES)
def test_what_we_write_is_read_alike_by_every_class(tmp_path: Path, name: str) -> None:
    tokenizer = Tokenizer.from_vocab(VOCABULARY, RULES[name])
    config = BertConfig(tokenizer.vocab_size, 4, 1, 1, 4, 8)
    params = jax.tree.map(np.asarray, drawn_params(Bert(config)))
    write_folder(config, params, tokenizer, tmp_path / "out", card="")
    ours = tokenizer.encode_sentences(LINES)
    for kind in (transformers.AutoTokenizer, transformers.BertTokenizer):
        assert theirs(kind.from_pretrained(tmp_path / "out")) == ours
    slow = theirs(
        transformers.models.bert.tokenization_bert_legacy.BertTokenizerLegacy.from_pretrained(tmp_path / "out")
    )
    alike = [number for number, line in enumerate(LINES) if not any(part in line for part in IN_PYTHON)]
    assert len(alike) > 300 and [slow[number] for number in alike] == [ours[number] for number in alike]


OWN = ["covid", "h\u00e4user", "Stra\u00dfe", "c++", "\u65e5\u672c", "crane"]


def of_own_words(read: Any, ours: Tokenizer, folder: Path) -> None:
    """Theirs, of what we write, reads as ours does whose vocabulary has more words."""
    own = OWN[: -1 if ADDED[-2] in ours.rules.added else None]  # "cran" is found first, wherever it is
    (folder / "words.txt").write_text("\n".join(own), encoding="utf-8")
    more = with_words_of(ours, folder / "words.txt")
    config = BertConfig(more.vocab_size, 4, 1, 1, 4, 8)
    params = jax.tree.map(np.asarray, drawn_params(Bert(config)))
    write_folder(config, params, more, folder / "out", card="")
    theirs = read(folder / "out")
    assert len(theirs) == more.vocab_size
    lines = [*OTHERS, *own, " ".join(own), *(f"the ({word}), {word}s \t{word} {word.upper()}." for word in own)]
    for line in lines:
        assert theirs(line, add_special_tokens=False)["input_ids"] == more.encode_sentences([line])[0], line
    (split,) = more.encode_sentences([" ".join(own)])
    assert len(split) == len(own)


@pytest.mark.parametrize("name", RULES)
def test_own_words_of_pieces(tmp_path: Path, name: str) -> None:
    of_own_words(transformers.AutoTokenizer.from_pretrained, Tokenizer.from_vocab(VOCABULARY, RULES[name]), tmp_path)


OTHERS = [
    *LINES,
    "the <mask> lifts",
    "a<mask>  <mask>",
    "  two  spaces ",
    "\n\nnew\tlines \n",
    "don't (crane)",
    "<s>a</s>",
]
ADDING = {**ROLES, "extra_special_tokens": ["<boat>"]}
WHOLE: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "RoBERTa's class": (bpe, "roberta", {"tokenizer_class": "RobertaTokenizer", **ROLES}),
    "RoBERTa's by its model": (bpe, "roberta", {}),
    "RoBERTa's, a space before": (bpe, "roberta", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}),
    "bytes as the file has them": (bpe, "roberta", {"tokenizer_class": "PreTrainedTokenizerFast", **ADDING}),
    "XLM-RoBERTa's class": (unigram, "xlm-roberta", {"tokenizer_class": "XLMRobertaTokenizer", **ROLES}),
    "XLM-RoBERTa's by its model": (unigram, "xlm-roberta", {}),
    "MPNet's class": (pieces, "mpnet", {"tokenizer_class": "MPNetTokenizer", **ROLES}),
    "MPNet's by its model, in capitals too": (pieces, "mpnet", {"do_lower_case": True, **ROLES}),
    "CamemBERT's class": (unigram, "camembert", {"tokenizer_class": "CamembertTokenizer"}),
    "pieces as the file has them": (unigram, "xlm-roberta", {"tokenizer_class": "PreTrainedTokenizerFast", **ADDING}),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("split", [True, False])
def test_tokenizers_that_tell_all(tmp_path: Path, name: str, split: bool) -> None:
    make, model_type, settings = WHOLE[name]
    made = make(OTHERS * 2, 400, **({"split": split} if make is unigram else {}))
    write(tmp_path / "theirs", made, **settings)
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 500}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    ours = load_tokenizer(tmp_path / "theirs")
    config = BertConfig(ours.vocab_size, 4, 1, 1, 4, 8)
    params = jax.tree.map(np.asarray, drawn_params(Bert(config)))
    write_folder(config, params, ours, tmp_path / "ours", card="")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    for number, line in enumerate(OTHERS):
        pair = (line, OTHERS[number - 1] or "a")  # an empty one is none to theirs
        expected = (theirs(line)["input_ids"], theirs(*pair)["input_ids"])
        assert (framed(ours, line), framed(ours, *pair)) == expected, line
        if "a" * 101 not in "".join(pair):  # which has pieces in several orders that are as likely
            assert (again(line)["input_ids"], again(*pair)["input_ids"]) == expected, line
            offsets = [theirs(line, return_offsets_mapping=True), again(line, return_offsets_mapping=True)]
            assert not name.startswith("RoBERTa's") or offsets[0]["offset_mapping"] == offsets[1]["offset_mapping"]


@pytest.mark.parametrize("name", WHOLE)
def test_own_words_of_tokenizers_that_tell_all(tmp_path: Path, name: str) -> None:
    make, model_type, settings = WHOLE[name]
    write(tmp_path / "theirs", make(OTHERS * 2, 400), **settings)
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 500}))
    of_own_words(transformers.AutoTokenizer.from_pretrained, load_tokenizer(tmp_path / "theirs"), tmp_path)
