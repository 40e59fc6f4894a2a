"""The way from a configuration to batches: what is filled in, refused and kept; and WikiText-2 itself."""

import collections
import dataclasses
import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from refusals import refusal

from bertjax.config import BertConfig, Config, DataConfig, EvalConfig
from bertjax.data.batching.batch import Batch
from bertjax.data.corpus import corpus
from bertjax.data.prepare import describe, prepare, prepare_held_out
from bertjax.data.sources import python_docs
from bertjax.data.sources import wikitext as wikitext_module
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, NUM_SPECIAL, SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.template import berts_template
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.runs.folder import RunFolder

REAL = os.environ.get("BERTJAX_DATA")  # before a fixture hides it


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """WikiText-2 is where a test puts it, or nowhere."""
    monkeypatch.setattr(wikitext_module, "download", functools.partial(wikitext_module.download, mirrors=()))
    monkeypatch.delenv("BERTJAX_DATA", raising=False)


@pytest.fixture
def small_docs(tmp_path, monkeypatch):
    """Python's documentation, of a library of a hundred modules."""
    stdlib = tmp_path / "stdlib"
    stdlib.mkdir()
    for i in range(100):
        (stdlib / f"module{i}.py").write_text(f'"""Module number{i} is plain.  It does thing{i}.  No more is said."""')
    for function in ("documents", "fingerprint"):
        monkeypatch.setattr(python_docs, function, functools.partial(getattr(python_docs, function), stdlib=stdlib))


def change(config, **parts):
    """The configuration with fields of some of its parts replaced."""
    return dataclasses.replace(
        config, **{part: dataclasses.replace(getattr(config, part), **values) for part, values in parts.items()}
    )


def read_plainly(file):
    """A file's paragraphs of sentences of words, as the textbook reads them."""
    with open(file, encoding="utf-8") as lines:
        paragraphs = [line.strip().lower().split(" . ") for line in lines if len(line.split(" . ")) >= 2]
    return [[sentence.split() for sentence in paragraph] for paragraph in paragraphs]


def count_words(paragraphs):
    return collections.Counter(word for paragraph in paragraphs for sentence in paragraph for word in sentence)


def words_of(tokenizer):
    return tokenizer.tokens(range(NUM_SPECIAL, tokenizer.vocab_size))


def refused(config, tokenizer=None):
    """The error's message."""
    with pytest.raises(BertjaxError) as caught:
        prepare(config, tokenizer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The vocabulary.


@pytest.mark.parametrize("min_frequency, words", [(1, {"a", "b", ".", "rare"}), (2, {"a", "b", "."})])
def test_the_vocabulary_is_the_training_splits(tiny, tmp_path, min_frequency, words):
    (tmp_path / "wiki.train.tokens").write_text(" A b . b a . \n rare . <unk> . \n")
    (tmp_path / "wiki.valid.tokens").write_text(" a other . other b . \n")
    config = change(
        tiny, data={"path": str(tmp_path)}, tokenizer={"min_frequency": min_frequency}, train={"batch_size": 1}
    )
    prepared = prepare(config)
    assert set(words_of(prepared.tokenizer)) == words
    assert prepared.tokenizer.tokens(prepared.held_out.ids) == ["a", "<unk>", "<unk>", "b", "."]
    assert prepared.tokenizer.tokens(prepared.train.ids)[:4] == ["a", "b", "b", "a"]


@pytest.mark.parametrize(
    "settings, rules, size",
    [
        ({"kind": "wordpiece", "vocab_size": 30}, Rules("wordpiece", special=BERTS_SPECIAL_TOKENS), 30),
        (
            {"kind": "wordpiece", "vocab_size": 40, "lowercase": False},
            Rules("wordpiece", False, False, special=BERTS_SPECIAL_TOKENS),
            40,
        ),
        ({"kind": "wordpiece", "vocab_size": 30, "strip_accents": False}, Rules("wordpiece", True, False), 30),
        ({"vocab_size": 9}, Rules(), 9),
        ({"lowercase": False}, Rules(lowercase=False), 17),
    ],
)
def test_the_vocabulary_is_of_the_kind_asked_for(tiny, settings, rules, size):
    config = change(tiny, tokenizer=settings)
    for prepared in (prepare(config), prepare(config)):  # built, then from the cache
        assert prepared.tokenizer.rules[:4] == rules[:4] and prepared.tokenizer.vocab_size == size
        assert prepared.train_batches.batch_at(0).tokens_bt.max() < size
    word = "pieces:" if "kind" in settings else "words:"
    assert describe(prepared).splitlines()[-1].split()[:2] == [word, str(size)]


@pytest.mark.parametrize(
    "settings, remedy",
    [
        ({"min_frequency": 100}, "a lower tokenizer.min_frequency"),
        ({"kind": "wordpiece", "vocab_size": 21}, "a greater tokenizer.vocab_size"),
        ({"path": "vocabulary.json"}, "a vocabulary made for this text"),
    ],
)
def test_much_that_is_unknown_is_told(tiny, tmp_path, capsys, settings, remedy):
    if "path" in settings:
        settings = {"path": str(tmp_path / settings["path"])}
        Path(settings["path"]).write_text(Tokenizer.train(["the noun1 sees a"], min_frequency=1).to_json())
    prepared = prepare(change(tiny, tokenizer=settings))
    ids, unk = prepared.train.ids.tolist(), prepared.tokenizer.vocabulary.unk
    share, token = ids.count(unk) / len(ids), prepared.tokenizer.rules.special[1]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {share:.1%} of the tokens of wikitext-2/train are {token}") and remedy in line
    assert share > 0.01
    prepare(tiny)
    assert capsys.readouterr().err == ""


def test_a_given_tokenizer_is_used(tiny):
    own, given = prepare(tiny), Tokenizer.train(["the noun1"], min_frequency=1)
    prepared = prepare(tiny, given)
    assert prepared.tokenizer is given and prepared.config.model.vocab_size == 7
    tokens = own.tokenizer.tokens(own.train.ids)
    assert prepared.train.ids.tolist() == given.ids(tokens)
    assert prepared.train.ids.max() == 6  # so not the corpus that is in the cache


def vocabulary_of_theirs(folder, **settings):
    """A vocab.txt with the words of that language, and what is said of it; the path of the former."""
    words = [*"the sees a near .".split(), *(f"noun{number}" for number in range(7))]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join([*BERTS_SPECIAL_TOKENS, *words]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **settings}))
    return folder / "vocab.txt"


def test_added_tokens_are_in_the_corpus_and_in_the_run(tiny, tmp_path):
    added = {"added_tokens_decoder": {"17": {"content": "noun1 sees", "special": False}}}
    path = vocabulary_of_theirs(tmp_path / "theirs", additional_special_tokens=["noun2"], **added)
    prepared = prepare(change(tiny, tokenizer={"path": str(path)}))
    counts_v = np.bincount(prepared.train.ids, minlength=18)
    assert prepared.tokenizer.vocab_size == 18 and counts_v[17] > 0
    text = (Path(tiny.data.path) / "wiki.train.tokens").read_text()
    assert counts_v[17] == text.count("noun1 sees") and counts_v[12] == text.count("noun2")
    labels_bp = prepared.train_batches.batch_at(0).mlm_labels_bp
    assert 12 not in labels_bp and 17 in labels_bp  # a special token is not to be predicted
    folder = RunFolder(tiny.run_dir)
    folder.create(prepared)
    again = folder.tokenizer()
    assert (again.rules, again.vocabulary) == (prepared.tokenizer.rules, prepared.tokenizer.vocabulary)
    assert again.to_json() == prepared.tokenizer.to_json()


def test_a_vocabulary_without_a_mask_is_refused(tiny, tmp_path):
    path = vocabulary_of_theirs(tmp_path / "theirs")
    path.write_text(path.read_text().replace("[MASK]", "[unused]"))
    assert "has no mask to hide words with; give one that has [MASK]" in refusal(
        prepare, change(tiny, tokenizer={"path": str(path)})
    )


def test_texts_to_train_on_are_laid_out_as_berts(tiny, tmp_path, capsys):
    path = vocabulary_of_theirs(tmp_path / "theirs", truncation_side="left")
    prepared = prepare(change(tiny, tokenizer={"path": str(path)}))
    assert prepared.tokenizer.template == berts_template(2, 3)
    assert f"{path} sets special tokens in a way of its own" in capsys.readouterr().out


def test_the_models_vocabulary_size(tiny):
    size = prepare(tiny).tokenizer.vocab_size
    for given in (None, size, size + 99):
        config = change(tiny, model={"vocab_size": given})
        assert prepare(config).config == change(tiny, model={"vocab_size": given or size})
    message = refused(change(tiny, model={"vocab_size": size - 1}))
    assert f"model.vocab_size={size - 1} is below the tokenizer's {size}" in message


def test_only_the_tokenizers_words_are_drawn(tiny):
    prepared = prepare(change(tiny, model={"vocab_size": 5000}, data={"mlm_probability": 1.0}))
    for batches in (prepared.train_batches, prepared.held_out_batches):
        assert batches.batch_at(0).tokens_bt.max() < prepared.tokenizer.vocab_size


# The source.


def test_the_source_that_was_found_is_recorded(tiny, small_docs):
    prepared = prepare(tiny)
    assert (prepared.config.data.source, prepared.instead_of) == ("wikitext-2", None)
    lost = change(tiny, data={"path": None, "fallback": "python-docs"})
    prepared = prepare(lost)
    assert prepared.config == change(
        lost, data={"source": "python-docs"}, model={"vocab_size": prepared.tokenizer.vocab_size}
    )
    assert "cannot be downloaded" in prepared.instead_of
    assert (prepared.train.name, prepared.held_out.name) == ("python-docs/train", "python-docs/valid")
    assert "data.fallback" in refused(change(tiny, data={"path": None}))


def test_the_description(tiny, wikitext, small_docs):
    lines = describe(prepare(tiny)).splitlines()
    assert len(lines) == 3 and "NOTICE" not in str(lines)
    for line, split in zip(lines, ("train", "valid"), strict=False):
        text = read_plainly(wikitext / f"wiki.{split}.tokens")
        counts = (len(text), sum(map(len, text)), count_words(text).total(), sum(len(p) - 1 for p in text))
        numbers = "{:,} paragraphs, {:,} sentences, {:,} tokens, {:,} pairs that fit".format(*counts)
        assert line.endswith(f"wikitext-2/{split}: {numbers}")
    notice, *lines = describe(prepare(change(tiny, data={"path": None, "fallback": "python-docs"}))).splitlines()
    assert notice.startswith("NOTICE:   python-docs is read instead of what was asked for")
    facts = [line.startswith("train:") for line in lines].index(True)
    reason = " ".join(lines[:facts])
    assert "WikiText-2 (train, valid) cannot be downloaded" in reason and "python-docs/train" in lines[facts]


def test_rows_that_are_mostly_padding_are_told_of(tiny):
    settings = {"data": {"row_length": 200, "objective": "mlm"}, "train": {"batch_size": 2}}
    _, notice, *others = describe(prepare(change(tiny, **settings))).splitlines()
    assert notice.startswith("NOTICE:   most of each row is padding") and "below 200" in notice and "above 2" in notice
    assert "NOTICE" not in str(others)
    assert "NOTICE" not in describe(prepare(change(tiny, **settings | {"train": {"batch_size": 16}})))


def test_a_text_that_repeats_itself_is_told_of(tiny, tmp_path):
    text = str(tmp_path / "a.txt")
    Path(text).write_text("The crane flies.\nThe crane flies.\nIt sees a river.\n\n" * 400)
    data = {"source": "files", "path": text, "eval_path": text, "sentence": "line", "objective": "mlm+sop"}
    assert "NOTICE" not in describe(prepare(change(tiny, data=data)))
    prepared = prepare(change(tiny, data=data | {"objective": "mlm+nsp"}))
    share = prepared.train_batches.without_stranger
    assert 0 < share < 0.02
    notice = f"NOTICE:   {share:.2%} of the pairs of files/train that were to have another sentence than the next keep"
    assert describe(prepared).splitlines()[1].startswith(notice)


# Batches.


def test_batches_are_as_the_configuration_says(tiny):
    prepared = prepare(change(tiny, data={"mlm_probability": 0.5, "max_length": 20}, train={"batch_size": 16}))
    for batches in (prepared.train_batches, prepared.held_out_batches):
        assert batches.batch_at(0).tokens_bt.shape == (16, 20)
        assert batches.batch_at(0).mlm_labels_bp.shape == (16, 10)


def test_the_masking_rate_of_evaluations_is_its_own(tiny):
    def held_out(eval_rate=None, **rates):
        data = dataclasses.replace(tiny.data, **rates)
        config = dataclasses.replace(tiny, data=data, eval=EvalConfig(mlm_probability=eval_rate))
        return next(prepare(config).held_out_batches.first_epoch())

    usual = held_out(mlm_probability=0.15)
    for other in (held_out(0.15, mlm_probability=0.4), held_out(mlm_probability=0.15, mlm_probability_end=0.4)):
        for a, b in zip(usual, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert held_out(mlm_probability=0.4).mlm_weights_bp.sum() > 1.5 * usual.mlm_weights_bp.sum()


def test_held_out_sequences_may_be_shorter_than_those_to_learn_from(tiny):
    def held_out(too_long, max_length, of_eval=None):
        data = dataclasses.replace(tiny.data, too_long=too_long, max_length=max_length)
        batches = prepare(dataclasses.replace(tiny, data=data, eval=of_eval or EvalConfig())).held_out_batches
        return batches.num_sequences, next(batches.first_epoch())

    (count, usual), (longer, _) = held_out("drop", 17), held_out("truncate", 30)
    assert count < longer
    again, same = held_out("truncate", 30, EvalConfig(max_length=17, too_long="drop"))
    assert again == count
    for a, b in zip(usual, same, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_rate_of_training_is_on_its_way_over_the_steps(tiny):
    data = dataclasses.replace(tiny.data, mlm_probability=0.4, mlm_probability_end=0.1)
    batches = prepare(dataclasses.replace(tiny, data=data)).train_batches
    assert [batches.mlm_probability_at(step) for step in range(5)] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.1])


def test_packed_rows_are_as_the_configuration_says(tiny):
    prepared = prepare(change(tiny, data={"row_length": 60}, train={"batch_size": 16}))
    for line, batches in zip(
        describe(prepared).splitlines(), (prepared.train_batches, prepared.held_out_batches), strict=False
    ):
        shape = batches.batch_at(0).tokens_bt.shape
        assert shape == (batches.num_rows, 60) and shape[0] < 16
        assert line.endswith(f"packed: {shape[0]} rows a step, {batches.fill:.1%} full")
    config = change(tiny, data={"row_length": tiny.data.max_length})
    for name, one, other in zip(
        Batch._fields, *(prepare(c).train_batches.batch_at(0) for c in (tiny, config)), strict=True
    ):
        np.testing.assert_array_equal(one, other, err_msg=name)


def test_the_seed_moves_the_training_batches_only(tiny):
    one, other = prepare(tiny), prepare(dataclasses.replace(tiny, seed=1))
    assert (one.train_batches.batch_at(0).tokens_bt != other.train_batches.batch_at(0).tokens_bt).any()
    for a, b in zip(one.held_out_batches.first_epoch(), other.held_out_batches.first_epoch(), strict=True):
        for name in Batch._fields:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_a_batch_of_more_than_the_pairs(tiny):
    pairs = prepare(tiny).train_batches.num_sequences
    prepare(change(tiny, train={"batch_size": pairs}))
    more = change(tiny, train={"batch_size": pairs + 1})
    message = refused(more)
    assert f"train.batch_size={pairs + 1}" in message and f"{pairs} pairs" in message
    corpus, batches = prepare_held_out(more, prepare(tiny).tokenizer)  # there it may be filled up
    assert corpus.name == "wikitext-2/valid" and len(list(batches.first_epoch())) == 1


def test_text_of_rare_words_only(tiny):
    refused(change(tiny, tokenizer={"min_frequency": 10**6}))


# The cache.


def test_the_second_start_builds_nothing(tiny, monkeypatch):
    first = prepare(tiny)

    def build(*args, **settings):
        raise AssertionError("built again")

    monkeypatch.setattr(Tokenizer, "train", build)
    monkeypatch.setattr(corpus, "write_shard", build)
    second = prepare(tiny)
    assert second.config == first.config
    assert second.tokenizer.to_json() == first.tokenizer.to_json()
    assert (second.train.digest, second.held_out.digest) == (first.train.digest, first.held_out.digest)
    with pytest.raises(AssertionError, match="built again"):
        prepare(change(tiny, tokenizer={"min_frequency": 2}))


def test_changed_text_is_read_anew(tiny, tmp_path):
    config = change(tiny, data={"path": str(tmp_path)}, train={"batch_size": 1})
    for word in ("heron", "crane"):
        for split in ("train", "valid"):
            (tmp_path / f"wiki.{split}.tokens").write_text(f" {word} flies . {word} lands . \n")
        prepared = prepare(config)
        assert word in words_of(prepared.tokenizer)
        assert prepared.tokenizer.tokens(prepared.held_out.ids) == [word, "flies", word, "lands", "."]


def test_without_a_folder_the_users_cache_is_used(tiny):
    prepare(change(tiny, data={"cache": None}))
    assert sorted(path.name for path in Path(os.environ["XDG_CACHE_HOME"], "bertjax").iterdir()) == [
        "corpora",
        "tokenizers",
    ]


def test_a_full_disk_leaves_no_half_vocabulary(tiny, tmp_path, monkeypatch):
    def full(path, *args, **settings):
        path.write_bytes(b"{")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        message = refused(tiny)
    assert str(tmp_path / "cache") in message and "No space left" in message and "data.cache" in message
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    prepare(tiny)


# WikiText-2, its valid split; the figures were counted by other programs.


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A function of too_long that reads the split with pairs of 64 tokens and words seen 5 times."""
    if REAL is None:
        pytest.skip("BERTJAX_DATA, the folder of the real text, is not set")
    cache = tmp_path_factory.mktemp("cache")

    def prepared(too_long):
        data = DataConfig(
            path=f"{REAL}/wikitext-2",
            cache=str(cache),
            train_split="valid",
            eval_split="valid",
            max_length=64,
            too_long=too_long,
        )
        return prepare(Config(data=data, model=BertConfig.textbook()))

    return prepared


def test_real_counts(real):
    prepared = real("drop")
    assert len(prepared.train.paragraphs) - 1 == 1673
    assert len(prepared.train.sentences) - 1 == 7889
    assert prepared.train.ids.size == 201_533
    assert prepared.tokenizer.vocab_size == prepared.config.model.vocab_size == 4271
    text = read_plainly(f"{REAL}/wikitext-2/wiki.valid.tokens")
    words = {word for word, count in count_words(text).items() if count >= 5 and word not in SPECIAL_TOKENS}
    assert set(words_of(prepared.tokenizer)) == words
    flat = [word if word in words else "<unk>" for paragraph in text for sentence in paragraph for word in sentence]
    assert prepared.tokenizer.tokens(prepared.train.ids) == flat


@pytest.mark.parametrize("too_long, num_sequences", [("drop", 4680), ("truncate", 6216)])
def test_real_pairs(real, too_long, num_sequences):
    batches = real(too_long).train_batches
    assert batches.num_sequences == num_sequences
    lengths = np.concatenate([batches.batch_at(step).sequences_bt.sum(axis=1) for step in range(num_sequences // 256)])
    assert lengths.max() == 64
    if too_long == "drop":
        assert 40 < lengths.mean() < 50
