"""The made-up text has WikiText-2's measure, and real text is taken where it is at hand."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.speed.text import TRAIN, Size, prepare_text, scaled, write_synthetic
from bertjax.config import Config, DataConfig
from bertjax.config.recipes import load_config
from bertjax.data.sources.wikitext import documents

SMALL = Size(lines=200, words=11_000, frequent=50, rare=3)
TEXTBOOK = load_config("textbook")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "wiki.train.tokens"
    write_synthetic(path, TRAIN)
    return path


def test_lines_and_tokens_are_those_of_wikitext_2(synthetic):
    lines = synthetic.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 36_718
    assert sum(len(line.split()) for line in lines) + len(lines) == 2_088_628  # the end of a line counts there
    assert sum(line.startswith(" = ") for line in lines) > 6_000 and lines.count(" ") > 12_000


def test_words_are_as_frequent_as_in_a_language(synthetic):
    counts = Counter(word for line in synthetic.read_text(encoding="utf-8").splitlines() for word in line.split())
    frequent = [count for _, count in counts.most_common(1000)]
    assert frequent[0] > 20 * frequent[99] > 100 * frequent[999] > 0
    assert sum(count < 5 for count in counts.values()) == TRAIN.rare


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BERTJAX_DATA", raising=False)
        folder = tmp_path_factory.mktemp("bench")
        data = dataclasses.replace(TEXTBOOK.data, cache=str(folder / "empty"))
        return prepare_text(dataclasses.replace(TEXTBOOK, data=data), folder)


def test_vocabulary_and_pairs_are_those_of_wikitext_2(prepared):
    (made, name) = prepared
    assert "synthetic" in name and made.tokenizer.vocab_size == 20_256
    batches = [made.train_batches.batch_at(step) for step in range(16)]
    tokens = sum((batch.sequences_bt > 0).sum() for batch in batches)
    pairs = sum(batch.nsp_weights_bk.sum() for batch in batches)
    assert pairs == 16 * 512 and tokens / pairs == pytest.approx(45.5, rel=0.02)


def test_the_text_is_always_the_same(tmp_path):
    for name in ("one", "two"):
        write_synthetic(tmp_path / name, SMALL)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("share", [0.125, 0.5])
def test_scaled_texts_keep_the_vocabulary(tmp_path, share):
    size = scaled(TRAIN, share)
    write_synthetic(tmp_path / "text", size)
    lines = (tmp_path / "text").read_text(encoding="utf-8").splitlines()
    counts = Counter(word for line in lines if not line.startswith(" =") for word in line.split())
    assert len(lines) == size.lines == round(36_718 * share)
    assert sum(len(line.split()) for line in lines) == size.words
    assert sum(count >= 5 and word != "<unk>" for word, count in counts.items()) == TRAIN.frequent


def test_sentences_are_read_as_they_were_made(tmp_path):
    write_synthetic(tmp_path / "text", SMALL)
    paragraphs = [paragraph for document in documents(tmp_path / "text") for paragraph in document]
    assert len(paragraphs) == 200 - 3 * round(200 * 6_856 / 36_718)
    assert all(sentence.strip() for paragraph in paragraphs for sentence in paragraph)


def test_real_text_is_taken_where_it_is_at_hand(wikitext, tmp_path):
    config = Config(data=DataConfig(path=str(wikitext), max_length=24, eval_split="test"))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=8))
    config = dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, min_frequency=1))
    prepared, name = prepare_text(config, tmp_path)
    assert name == "wikitext-2/train" and prepared.tokenizer.vocab_size == 17
    again = load_config(tmp_path / "config.yaml")
    assert again == prepared.config and Path(again.data.cache).is_relative_to(tmp_path)
