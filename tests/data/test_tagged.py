"""Tagged sentences: words and tags of any kind of file, as pieces, and which are held out."""

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from bertjax.config import TaskConfig
from bertjax.data.sources.lines import Part
from bertjax.data.sources.records import Place
from bertjax.data.tagged import (
    NO_TAG,
    Sentence,
    TaggedExamples,
    check_tags,
    learn_tags,
    make_tagged,
    read_sentences,
    read_words,
    sorted_sentences,
    split_sentences,
)
from bertjax.data.tags import Tags
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.template import Template
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError

TASK = TaskConfig("tag", text="words", label="tags")
SENTENCES = [(("EU", "rejects", "German", "call"), ("B-ORG", "O", "B-MISC", "O")), (("Peter",), ("B-PER",))]
CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP O

-DOCSTART- -X- -X- O

Peter NNP B-NP B-PER
"""


def read(path: Path, task: TaskConfig = TASK) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(one.words, one.tags) for one in read_sentences(task, str(path), "task.train")]


def made(sentences: str, **also: Any) -> list[Sentence]:
    """A sentence for each group of letters, sorted: a letter is a word with itself as its tag."""
    place = Place(Part("a.parquet"), "row", 7)
    found = [Sentence(tuple(letters), tuple(letters), place, {}, **also) for letters in sentences.split()]
    return sorted(found, key=lambda one: one.key)


def test_sentences_are_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    records = [{"words": list(words), "tags": list(tags)} for words, tags in SENTENCES]
    (tmp_path / "a.conll").write_text(CONLL)
    (tmp_path / "a.txt").write_text(CONLL.replace(" ", "\t").replace("\n", "\r\n").rstrip())
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"# text\n\nEU\tB-ORG\n" + b"rejects\tO\n"))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "a.json").write_text(json.dumps(records))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet")
    for name in ("a.conll", "a.txt", "a.jsonl", "a.json", "a.parquet"):
        assert read(tmp_path / name) == SENTENCES, name
    assert read(tmp_path / "a.tsv.gz") == [(("EU", "rejects"), ("B-ORG", "O"))]
    assert len(read(tmp_path / "a.*[lnt]")) == 5 * len(SENTENCES)  # several files, by a pattern


def test_columns_are_chosen_by_number_or_name_and_numbers_are_tags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.conll").write_text(CONLL)
    assert read(tmp_path / "a.conll", TaskConfig("tag", text="1", label="2"))[1] == (("Peter",), ("NNP",))
    assert "a.conll: words are in column 1 of 4, and tags in column 2; task.text and task.label" in (
        capsys.readouterr().out
    )
    (tmp_path / "a.jsonl").write_text('{"a": {"tokens": ["x", "y"]}, "ner": [10, 9], "n": 4}\n')
    (one,) = read_sentences(TaskConfig("tag", text="a.tokens", label="ner", group="n"), str(tmp_path / "a.jsonl"), "")
    assert (one.words, one.tags, one.group) == (("x", "y"), ("10", "9"), "4")
    assert learn_tags([one]) == Tags(("9", "10"), None) and learn_tags(made("ba a")) == Tags(("a", "b"), None)


WRONG: list[tuple[str, str, dict[str, str], str]] = [  # a file's name and text, the task's keys, and what is said
    ("a.conll", "a O\nb\n", {}, "line 2 of FILE has 1 columns, and the first word's has 2; mend it, or leave it out"),
    ("a.conll", "\na x O\n\nb O\n", {}, "line 4 of FILE has 2 columns, and the first word's has 3; "),
    ("a.conll", "# 1\na\nb\n", {}, "line 2 of FILE has words and tags in one column, 1 of 1; add the tags"),
    ("a.conll", "a O\n", {"label": "1"}, "line 1 of FILE has words and tags in one column, 1 of 2; give task.text and"),
    ("a.conll", "a O\n", {"text": "3"}, "line 1 of FILE has 2 columns, and task.text=3 is none of them; give 1 to 2"),
    ("a.conll", "a O\n", {"group": "doc"}, "line 1 of FILE has columns without names, and task.group=doc is no number"),
    ("a.tsv", "a\tO\nb\t\n", {}, "line 2 of FILE has an empty tag; "),
    ("a.tsv", "a\tO\n\tO\n", {}, "line 2 of FILE has an empty word; "),
    ("a.conll", "\n# none\n\n", {}, "FILE has no sentences; give task.train tagged ones"),
    ("a.conll", "x" * (1 << 20), {}, "line 1 of FILE has more than 1,048,576 bytes; "),
    ("a.csv", "words,tags\n", {}, "FILE is a table, and sentences are lists of words; give task.train lists in .jsonl"),
    ("a.jsonl", '{"words": ["a"]}\n', {}, "line 1 of FILE has nothing in the column 'tags' (task.label), but in words"),
    (
        "a.jsonl",
        '{"words": ["a", "b"], "tags": ["x"]}\n',
        {},
        "line 1 of FILE has 2 words in 'words' (task.text) and 1 tags in 'tags' (task.label), where each word has one",
    ),
    (
        "a.jsonl",
        '\n{"words": "a", "tags": ["x"]}\n',
        {},
        "line 2 of FILE has no list of words in 'words' (task.text), ",
    ),
    (
        "a.jsonl",
        '{"words": ["a"], "tags": "x"}\n',
        {},
        "line 1 of FILE has no list of tags in 'tags' (task.label), but",
    ),
    ("a.jsonl", '{"words": [], "tags": []}\n', {}, "line 1 of FILE has no words in 'words' (task.text); mend it"),
    (
        "a.jsonl",
        '{"words": ["a", 1], "tags": [1, 2]}\n',
        {},
        "word 2 in line 1 of FILE has no text as 'words' (task.te",
    ),
    ("a.jsonl", '{"words": ["\\ud800"], "tags": [1]}\n', {}, "word 1 in line 1 of FILE holds half a character, a lone"),
    ("a.jsonl", '{"words": ["a"], "tags": [null]}\n', {}, "tag 1 in line 1 of FILE has no text as 'tags' (task.label)"),
    (
        "a.jsonl",
        '{"words": ["a"], "tags": [" "]}\n',
        {},
        "line 1 of FILE has an empty tag, number 1, in 'tags' (task.l",
    ),
]


@pytest.mark.parametrize("name, text, keys, said", WRONG)
def test_what_cannot_be_read_is_named_by_file_line_and_column(
    tmp_path: Path, name: str, text: str, keys: dict[str, Any], said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BertjaxError) as error:
        sorted_sentences(
            TaskConfig(**{"kind": "tag", "text": "words", "label": "tags"} | keys), str(tmp_path / name), "task.train"
        )
    assert str(error.value).startswith(said.replace("FILE", str(tmp_path / name)))
    assert "\n" not in str(error.value)


def test_tags_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(BertjaxError, match="every word of 2 sentences has the tag 'a'; give two tags or more"):
        learn_tags(made("aa a"))
    tags = learn_tags(made("ab"))
    with pytest.raises(BertjaxError, match="^word 3 in row 7 of a.parquet has the tag 'c', which no .* they have a, b"):
        check_tags(made("abca"), tags)
    (tmp_path / "a.conll").write_text("\nw a\nw b\nw c\n")
    with pytest.raises(BertjaxError, match="^line 4 of .*a.conll has the tag 'c'"):
        check_tags(sorted_sentences(TASK, str(tmp_path / "a.conll"), ""), tags)


def test_a_split_is_of_sentences_seeded_and_does_not_look_at_the_order() -> None:
    rows = made(" ".join(f"{'ab'[n % 2]}{chr(200 + n)}"[:1] * (1 + n % 3) + "abcd"[n % 4 :] for n in range(40)) + " zz")
    train, held_out = split_sentences(rows, 0.25, seed=0)
    assert len(held_out) >= 8 and sorted(train + held_out, key=lambda one: one.key) == rows
    assert not {one.words for one in train} & {one.words for one in held_out}
    assert all("z" not in one.tags for one in held_out)  # each tag has something to learn from
    other = random.Random(0).sample(rows, len(rows))
    assert {one.words for one in split_sentences(other, 0.25, seed=0)[1]} == {one.words for one in held_out}
    assert {one.words for one in split_sentences(rows, 0.25, seed=1)[1]} != {one.words for one in held_out}


def test_documents_stay_whole_whatever_they_are_called(tmp_path: Path) -> None:
    choose = random.Random(1)
    documents = ["".join(f"w{choose.randint(0, 99)} {choose.choice('ab')}\n\n" for _ in range(3)) for _ in range(20)]

    def held_out(order: list[str]) -> set[tuple[str, ...]]:
        (tmp_path / "a.conll").write_text("".join(f"-DOCSTART- O\n\n{document}" for document in order))
        sentences = sorted_sentences(TASK, str(tmp_path / "a.conll"), "")
        train, held_out = split_sentences(sentences, 0.2, seed=0)
        counts = Counter(one.group for one in held_out)
        assert set(counts.values()) == {3} and not counts.keys() & {one.group for one in train}
        return {one.words for one in held_out}

    assert held_out(documents) == held_out(documents[::-1]) and len(held_out(documents)) > 6
    (tmp_path / "a.conll").write_text("-DOCSTART- O\n\n" + "".join(documents))  # of one document sentences are split
    assert len(split_sentences(sorted_sentences(TASK, str(tmp_path / "a.conll"), ""), 0.2, seed=0)[1]) == 12


RULES = Rules("wordpiece", special=BERTS_SPECIAL_TOKENS)
VOCABULARY = [*BERTS_SPECIAL_TOKENS, "paris", "u", ".", "s", "un", "##der", "##stand", "in"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_vocab({token: number for number, token in enumerate(VOCABULARY)}, RULES)


WORDS = ("Understand", "U.S.", "\u200b", "[SEP]", "in", "Zürich")  # 3, 4, 0, 1, 1 and 1 pieces


def test_words_are_read_one_by_one(tokenizer: Tokenizer) -> None:
    (one,) = read_words([WORDS], tokenizer, 99)
    assert tokenizer.tokens(one.ids) == "[CLS] un ##der ##stand u . s . [SEP] in [UNK] [SEP]".split()
    assert one.words == [-1, 0, 0, 0, 1, 1, 1, 1, 3, 4, 5, -1] and one.first_tokens == [1, 4, -1, 8, 9, 10]
    assert one.num_cut == 0
    (one,) = read_words([WORDS], tokenizer, 10)
    assert one.words == [-1, 0, 0, 0, 1, 1, 1, 1, 3, -1]
    assert (one.first_tokens, one.num_cut) == ([1, 4, -1, 8, -1, -1], 2)
    at_the_end = tokenizer.with_template(Template(*tokenizer.template[:2], keep_end=True))
    (one,) = read_words([WORDS], at_the_end, 7)
    assert one.words == [-1, 1, 1, 3, 4, 5, -1]
    assert (one.first_tokens, one.num_cut) == ([-1, -1, -1, 3, 4, 5], 2)
    assert [read.ids for read in read_words([()], tokenizer, 9)] == [[2, 3]]
    ((spans, _),) = tokenizer.words_of([" Understand the U.S. [SEP]!"])
    assert [" Understand the U.S. [SEP]!"[slice(*span)] for span in spans] == "Understand the U . S . [SEP] !".split()


@pytest.mark.parametrize(
    "label_pieces, expected", [("first", [-1, 0, -1, -1, 1, -1, -1, 2, -1]), ("all", [-1, 0, 2, 2, 1, 1, 1, 2, -1])]
)
def test_first_pieces_or_all_have_the_tag(
    tokenizer: Tokenizer, label_pieces: Any, expected: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    tags, place = Tags(("B-x", "B-y", "I-x", "O"), "IOB2"), Place(Part("a.jsonl"), "line", 1)
    sentences = [
        Sentence(("Understand", "\u200b", "U.S", "in", "Paris"), ("B-x", "O", "B-y", "I-x", "O"), place, {}),
        Sentence(("in",), ("O",), place, {}),
    ]
    how: dict[str, Any] = {"max_length": 9, "name": "a.jsonl"}
    examples = make_tagged(sentences, tags, tokenizer, label_pieces=label_pieces, **how)
    assert examples.labels_m.tolist() == [*expected, NO_TAG, 3, NO_TAG]
    assert examples.first_tokens_w.tolist() == [1, -1, 4, 7, -1, 10]
    assert examples.tags_w.tolist() == [0, 3, 1, 2, 3, 3] and examples.word_starts_n.tolist() == [0, 5, 6]
    assert examples.starts_n.tolist() == [0, 9, 12] and (examples.len_a_n == examples.lengths_n).all()
    said = capsys.readouterr().out
    assert "1 words of a.jsonl are beyond data.max_length=9 tokens of their sentence: they are not read, and" in said
    assert "1 words of a.jsonl have no characters that the vocabulary can read: they are not read, and count" in said


def test_shuffled_sentences_are_the_same_examples(tmp_path: Path, tokenizer: Tokenizer) -> None:
    choose = random.Random(0)
    lines = ["".join(f"{choose.choice(WORDS)} {choose.choice('ab')}\n" for _ in range(n % 4 + 1)) for n in range(12)]

    def examples(order: list[str]) -> TaggedExamples:
        (tmp_path / "a.conll").write_text("\n".join(order))
        sentences = sorted_sentences(TASK, str(tmp_path / "a.conll"), "")
        return make_tagged(
            sentences, learn_tags(sentences), tokenizer, max_length=20, label_pieces="first", name="a.conll"
        )

    for one, other in zip(examples(lines), examples(lines[::-1]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert examples(lines[1:]).digest != examples(lines).digest
