"""Byte-level BPE and unigram pieces: what the library itself makes of a file, and where words begin and end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from odd_lines import odd_lines
from tokenizers import Tokenizer as Engine
from tokenizers import pre_tokenizers
from whole_tokenizers import LINES, ROLES, bpe, framed, unigram, write

from bertjax.data.corpus.corpus import load_or_build
from bertjax.data.corpus.shard_worker import Task
from bertjax.data.sources.formats import LAYOUT
from bertjax.data.tagged import read_words
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.rules import ROBERTAS_SPECIAL_TOKENS
from bertjax.data.tokenizer.settings import ROLES_FILE
from bertjax.data.tokenizer.template import A, B
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

ODD = [*odd_lines()[:100], "the <mask> left", "the<mask>  <mask>", "  two  spaces ", "\n\n<s>crane\u3000crane", ""]
MADE: dict[str, Callable[[], Engine]] = {"bpe": bpe, "unigram": unigram}


@pytest.fixture(scope="module", params=MADE)
def engine(request: pytest.FixtureRequest) -> Engine:
    made = MADE[request.param]()
    assert isinstance(made, Engine)
    return made


@pytest.fixture(scope="module")
def tokenizer(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(write(tmp_path_factory.mktemp("tokenizer"), engine))


def test_ids_are_the_librarys_own_whichever_method_finds_them(engine: Engine, tokenizer: Tokenizer) -> None:
    expected = [engine.encode(line, add_special_tokens=False).ids for line in ODD]
    assert tokenizer.encode_sentences(ODD) == expected
    assert [tokenizer.ids(tokens) for tokens in tokenizer.split_all(ODD)] == expected
    assert [[number for number, *_ in tokenizer.token_spans(line)] for line in ODD] == expected
    assert [pieces.ids for _, pieces in tokenizer.words_of(ODD)] == expected
    for line in ODD:
        assert framed(tokenizer, line) == engine.encode(line).ids
        assert framed(tokenizer, line, "he left") == engine.encode(line, "he left").ids


def test_special_tokens_have_their_roles_and_the_mask_takes_the_space_before_it(tokenizer: Tokenizer) -> None:
    assert tokenizer.rules.special == ROBERTAS_SPECIAL_TOKENS and tokenizer.vocabulary[1:6] == (1, 3, 0, 2, 4)
    tokens = tokenizer.split("the <mask> left")
    assert tokens[tokens.index("<mask>") - 1][-1] == "e"
    assert tokenizer.template.single.places == (0, A, 2) and tokenizer.template.pair.places == (0, A, 2, 2, B, 2)
    assert tokenizer.template.pair.num_first == 6


def same(one: Tokenizer, other: Tokenizer) -> None:
    assert (one.rules, one.vocabulary, one.template) == (other.rules, other.vocabulary, other.template)
    assert one.encode_sentences(ODD) == other.encode_sentences(ODD)


def test_a_run_a_worker_and_a_folder_of_others_have_the_same_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name, text in (("run", tokenizer.to_run_json()), ("hub", tokenizer.to_hub_json())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(text, encoding="utf-8")
        (tmp_path / name / ROLES_FILE).write_text(json.dumps(tokenizer.roles))
        same(load_tokenizer(tmp_path / name), tokenizer)
        settings = tokenizer.hub_settings()
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps(settings))
        same(load_tokenizer(tmp_path / name), tokenizer)
    task = Task.of_json(Task(LAYOUT, None, tokenizer).to_json())
    assert task.tokenizer.encode_sentences(ODD) == tokenizer.encode_sentences(ODD)


@pytest.mark.parametrize("settings", [{"tokenizer_class": "RobertaTokenizer"}, {"tokenizer_class": "GPT2Tokenizer"}])
@pytest.mark.parametrize("flag", [{}, {"add_prefix_space": True}, {"add_prefix_space": False}], ids=str)
def test_of_robertas_class_the_flag_says_whether_texts_begin_with_a_space(
    tmp_path: Path, settings: dict[str, Any], flag: dict[str, bool]
) -> None:
    written = bpe(prefix_space=True)
    read = load_tokenizer(write(tmp_path, written, **settings, **flag, **ROLES))
    of_class = settings["tokenizer_class"] == "RobertaTokenizer"
    assert (read.split("crane") == read.split(" crane")) == (not of_class or flag.get("add_prefix_space", False))


def test_of_xlm_robertas_class_white_space_ends_words_whatever_the_file_says(tmp_path: Path) -> None:
    written, text = unigram([*LINES, "a  b  c  d"], split=False), "a  crane "
    alone = load_tokenizer(write(tmp_path / "alone", written))
    assert alone.ids(alone.split(text)) == written.encode(text, add_special_tokens=False).ids
    of_class = load_tokenizer(write(tmp_path / "class", written, tokenizer_class="XLMRobertaTokenizer"))
    assert of_class.split(text) == of_class.split("a crane") == alone.split("a crane") != alone.split(text)


def test_a_vocabulary_and_merges_are_the_tokenizer(tmp_path: Path) -> None:
    engine = bpe()
    whole = load_tokenizer(write(tmp_path / "whole", engine, **ROLES))
    model = json.loads(engine.to_str())["model"]
    folder = tmp_path / "merges"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}")
    mask = {"content": "<mask>", "lstrip": True, "special": True}
    (folder / ROLES_FILE).write_text(json.dumps(ROLES | {"mask_token": mask}))
    same(load_tokenizer(folder), whole)
    same(load_tokenizer(folder / "vocab.json"), whole)
    (folder / "merges.txt").unlink()
    with pytest.raises(BertjaxError, match="vocab.json and merges.txt cannot be read: .*give a folder with both"):
        load_tokenizer(folder)


def without_unknown(folder: Path) -> None:
    write(folder, unigram())
    tree = json.loads((folder / "tokenizer.json").read_text())
    tree["model"]["unk_id"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tree))


def without_bytes(folder: Path) -> None:
    engine = bpe()
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    write(folder, engine)


def of_pieces_alone(folder: Path) -> None:
    (folder / "sentencepiece.bpe.model").write_bytes(b"\n")


def of_another_class(folder: Path) -> None:
    (folder / "vocab.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CTRLTokenizer"}')


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (without_unknown, r"no token for what its vocabulary lacks .unk_id=None."),
        (without_bytes, r"of another kind .BPE, None, Whitespace.; only BERT's, byte-level BPE and unigram"),
        (
            of_pieces_alone,
            "has its vocabulary as sentencepiece.bpe.model alone, which is not read; give it a tokenizer",
        ),
        (of_another_class, "tokenizer_class='CTRLTokenizer' may split text otherwise than RoBERTa does"),
        (lambda folder: write(folder, bpe(), unk_token="<s>"), "of the special tokens .* two are the same"),
        (
            lambda folder: write(folder, unigram(), unk_token="crane"),
            "reads unknown pieces as <unk>, but its unk_token",
        ),
        (
            lambda folder: write(folder, bpe(), tokenizer_class="RobertaTokenizer", add_prefix_space="yes"),
            'add_prefix_space="yes" is neither true nor false',
        ),
    ],
    ids=["no unknown", "no bytes", "pieces alone", "another class", "roles", "unknown", "flag"],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, make: Callable[[Path], object], complaint: str) -> None:
    make(tmp_path)
    with pytest.raises(BertjaxError, match=complaint) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


TEXT = "Cranes  (and the crane's understanding), un\u00e9 cranes."


def test_words_of_a_text_have_their_places_and_pieces(tokenizer: Tokenizer) -> None:
    ((spans, pieces),) = tokenizer.words_of([TEXT])
    words = [TEXT[start:end] for start, end in spans]
    assert " ".join(words).replace(" '", "'") in (
        "Cranes ( and the crane's understanding ) , un\u00e9 cranes .",
        "Cranes ( and the crane' s understanding ) , un\u00e9 cranes .",
    )
    assert sorted(set(pieces.words) - {-1}) == list(range(len(words)))
    for number, word in enumerate(words):
        ids = [one for one, of_word in zip(pieces.ids, pieces.words, strict=True) if of_word == number]
        assert tokenizer.text(ids) == word
        inside = [one in tokenizer.vocabulary.continuing for one in ids]
        assert all(inside[1:]) or not word.isalnum()
    assert tokenizer.text(pieces.ids) in (TEXT, TEXT.replace("  ", " "))
    assert tokenizer.words_of([" \n"])[0][0] == []


def test_words_one_by_one_are_read_as_in_a_text(tokenizer: Tokenizer) -> None:
    words = ["the", "crane", ".", "<mask>", "understanding"]
    (pieces,) = tokenizer.encode_words([words])
    assert pieces.ids == tokenizer.ids(tokenizer.split(" ".join(words)))
    (read,) = read_words([words], tokenizer, 99)
    assert read.ids == framed(tokenizer, " ".join(words)) and read.num_cut == 0
    for number, word in enumerate(words):
        at = [place for place, of_word in enumerate(read.words) if of_word == number]
        assert at[0] == read.first_tokens[number] and tokenizer.text([read.ids[place] for place in at]) == word


def test_sentences_of_a_paragraph_are_read_as_in_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    sentences = ["the crane left.", "he is flying.", "cranes"]
    corpus = load_or_build(tmp_path, "made-up", "1", [[sentences], [sentences]], tokenizer)  # type: ignore[list-item]
    whole = tokenizer.encode_sentences([" ".join(sentences)])[0]
    assert corpus.ids.tolist() == whole * 2 and len(corpus.sentences) == 7


def test_a_reader_sees_words_without_marks(tokenizer: Tokenizer) -> None:
    ids = tokenizer.ids(tokenizer.split("the crane\u00e9 <mask>"))
    assert "".join(tokenizer.words(ids)).replace("\u2581", "") in ("thecrane\u00e9<mask>", "thecrane\ufffd\ufffd<mask>")
    assert tokenizer.words([4]) == ["<mask>"] and tokenizer.text(ids[:-1]) == "the crane\u00e9"
