"""Vocabularies: which id a word has, and that a file gives the same ids back."""

import collections
import random
import signal

import pytest
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizer import training
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.data.tokenizer.rules import (
    BERTS_SPECIAL_TOKENS,
    CLS,
    MASK,
    NUM_SPECIAL,
    PAD,
    SEP,
    SPECIAL_TOKENS,
    UNK,
    Rules,
    Vocabulary,
)
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError


def vocabulary(tokenizer):
    return tokenizer.tokens(range(tokenizer.vocab_size))


def some_text(seed):
    """Sentences over 60 words, of which many are equally frequent."""
    draw = random.Random(seed)
    words = [f"Word{number}" for number in range(60)]
    return [" ".join(draw.choices(words, weights=range(60, 0, -1), k=9)) for _ in range(40)]


def test_special_tokens_come_first_whatever_the_text_holds():
    tokenizer = Tokenizer.train(["a <unk> <unk> <unk> <mask> <PAD> b a"], min_frequency=1)
    assert vocabulary(tokenizer) == [*SPECIAL_TOKENS, "a", "b"]
    assert (PAD, UNK, CLS, SEP, MASK) == (0, 1, 2, 3, 4)
    assert SPECIAL_TOKENS == ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>")
    assert vocabulary(Tokenizer.train([], min_frequency=1)) == list(SPECIAL_TOKENS)


@pytest.mark.parametrize("min_frequency", [1, 4, 10])
def test_words_are_those_frequent_enough_and_most_frequent_first(min_frequency):
    text = some_text(seed=0)
    counts = collections.Counter(" ".join(text).lower().split())
    words = vocabulary(Tokenizer.train(text, min_frequency=min_frequency))[NUM_SPECIAL:]
    assert sorted(words) == sorted(word for word, count in counts.items() if count >= min_frequency) != []
    assert [counts[word] for word in words] == sorted((counts[word] for word in words), reverse=True)


def test_ties_do_not_depend_on_the_order_of_the_text():
    text = some_text(seed=1)
    shuffled = random.Random(2).sample(text, len(text))
    assert Tokenizer.train(text, min_frequency=1).to_json() == Tokenizer.train(shuffled, min_frequency=1).to_json()
    assert vocabulary(Tokenizer.train(["d b c a"], min_frequency=1))[NUM_SPECIAL:] == ["a", "b", "c", "d"]


def test_case_is_lowered_in_training_and_in_use():
    tokenizer = Tokenizer.train(["Crane CRANE crane", "\u00dcber"], min_frequency=1)
    assert vocabulary(tokenizer)[NUM_SPECIAL:] == ["crane", "\u00fcber"]
    assert tokenizer.split(" A  Crane\tcame ,\nso\u00a0.") == ["a", "crane", "came", ",", "so", "."]
    assert tokenizer.encode_sentences(["cRaNe \u00dcBER"]) == [[5, 6]]


def test_sentences_become_what_their_words_become():
    text = some_text(seed=3)
    tokenizer = Tokenizer.train(text[:5], min_frequency=2)
    encoded = tokenizer.encode_sentences([*text, "", " \n"])
    assert encoded == [tokenizer.ids(tokenizer.split(sentence)) for sentence in text] + [[], []]
    known = set(vocabulary(tokenizer))
    for sentence, ids in zip(text, encoded, strict=False):
        words = sentence.lower().split()
        assert tokenizer.tokens(ids) == [word if word in known else "<unk>" for word in words]
    assert UNK in sum(encoded, [])


def test_unknown_words_and_ids():
    tokenizer = Tokenizer.train(["a b"], min_frequency=1)
    assert tokenizer.ids(["b", "nowhere", "<unk>", "a"]) == [6, UNK, UNK, 5]
    assert tokenizer.tokens([5, 7, 1]) == ["a", "<unk>", "<unk>"]


def test_a_signal_ends_the_training():
    def interrupt(*_):
        raise InterruptedError

    sentences = iter(["the same words"] * 5_000_000)  # seconds of work
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(InterruptedError):
            Tokenizer.train(sentences, min_frequency=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert next(sentences, None) is not None


def test_what_the_text_raises_is_raised():
    def sentences():
        yield "a b"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        Tokenizer.train(sentences(), min_frequency=1)


def test_words_end_where_the_engines_do():
    """At every character of the first plane, which has all the white space that Unicode knows."""
    text = "x".join(chr(number) for number in range(0x10000) if not 0xD800 <= number <= 0xDFFF)
    engine = Engine.from_str(Tokenizer.train([], min_frequency=1).to_json())
    expected = [word for word, _ in engine.pre_tokenizer.pre_tokenize_str(engine.normalizer.normalize_str(text))]
    assert Tokenizer.train([], min_frequency=1).split(text) == expected and len(expected) == 1 + 25


# Pieces of words.

PIECE_RULES = Rules("wordpiece", special=BERTS_SPECIAL_TOKENS)
TEXT = ["unaffable cranes are flying", "the crane flies", "an affable crane flying over cranes"] * 3


def test_pieces_of_words():
    tokenizer = Tokenizer.train(TEXT, min_frequency=2, rules=PIECE_RULES, vocab_size=60)
    tokens = vocabulary(tokenizer)
    assert tokens[:NUM_SPECIAL] == list(BERTS_SPECIAL_TOKENS) and len(tokens) == tokenizer.vocab_size == 60
    inside = frozenset(number for number, token in enumerate(tokens) if token[:2] == "##")
    assert tokenizer.vocabulary == Vocabulary(60, PAD, UNK, CLS, SEP, MASK, inside) and 0 < len(inside) < 55
    assert not Tokenizer.train(["##a ##a"], min_frequency=1).vocabulary.continuing
    pieces = tokenizer.split("Cranes flying, [MASK]!")
    assert "".join(pieces).replace("##", "") == "cranesflying[UNK][MASK][UNK]" and "cranes" in pieces
    assert tokenizer.encode_sentences(["Cranes flying, [MASK]!"]) == [tokenizer.ids(pieces)]
    again = Tokenizer.train(TEXT[::-1], min_frequency=2, rules=PIECE_RULES, vocab_size=60)
    assert again.to_json() == tokenizer.to_json()
    assert Tokenizer.train(TEXT, min_frequency=2, rules=PIECE_RULES, vocab_size=30).vocab_size == 30


def test_the_alphabet_is_what_the_text_has(monkeypatch):
    """All but 1 in 10,000 of its characters, of equally common ones the first, whatever chance and order have it."""
    monkeypatch.setattr(training, "_ALPHABET", 6)  # 1,000 of which would take a text a hundred times as long
    rare = [chr(0x4E00 + 7 * number) for number in range(30)]
    text = ["\u6771\u4eac\u5927\u5b66\u4e2d\u570b" * 100] * 33 + rare[::-1]  # 19,800 and 30: all but 2 are to stay
    tokenizers = [Tokenizer.train(some, min_frequency=2, rules=PIECE_RULES) for some in (text, text[::-1], text)]
    assert len({tokenizer.to_json() for tokenizer in tokenizers}) == 1
    assert set(vocabulary(tokenizers[0])[NUM_SPECIAL:]) == set("\u6771\u4eac\u5927\u5b66\u4e2d\u570b") | set(rare[:29])
    monkeypatch.setattr(training, "_ALPHABET", 1000)
    assert Tokenizer.train(text, min_frequency=2, rules=PIECE_RULES).vocab_size == NUM_SPECIAL + 36


def test_a_vocabulary_too_small_for_the_text_has_its_commonest_characters():
    text = ["\u6771" * 4 + "\u4eac" * 3 + "\u5927" * 3 + "\u5b66" * 5] * 3
    tokenizer = Tokenizer.train(text, min_frequency=1, rules=PIECE_RULES, vocab_size=8)
    assert vocabulary(tokenizer) == [*BERTS_SPECIAL_TOKENS, "\u4eac", "\u5b66", "\u6771"]
    # Where a character is one token at a word's beginning and another inside, both have room or neither.
    tokenizer = Tokenizer.train(["aba aba abc"], min_frequency=1, rules=PIECE_RULES, vocab_size=9)
    assert sorted(vocabulary(tokenizer)[NUM_SPECIAL:]) == ["##a", "##b", "a", "b"]


@pytest.mark.parametrize("rules", [PIECE_RULES, PIECE_RULES._replace(lowercase=False, strip_accents=False)])
def test_characters_are_counted_as_in_normal_text(rules):
    text = "\u00c9te\u0301 \u6771\ud55c\u0130\u1e9e \u03a3\u03a3 \ufeff\u200b\u00a0\t \U0001f600 x\u0323\u0307"
    tokenizer = Tokenizer.train([], min_frequency=1, rules=rules)
    normal = Engine.from_str(tokenizer.to_json()).normalizer.normalize_str(text * 3)
    counts = training._count_characters([text, "", text, text], rules)
    assert {letter: counts[letter] for letter in normal} == collections.Counter(normal) and "\u6771" in counts


@pytest.mark.parametrize(
    "rules, text, expected",
    [
        (PIECE_RULES, "\u00c9t\u00e9 \u6771\u4eac", ["ete", "\u6771", "\u4eac"]),
        (PIECE_RULES._replace(strip_accents=False), "\u00c9t\u00e9", ["\u00e9t\u00e9"]),
        (PIECE_RULES._replace(lowercase=False, strip_accents=False), "\u00c9t\u00e9", ["\u00c9t\u00e9"]),
        (PIECE_RULES._replace(split_chinese=False), "\u6771\u4eac", ["\u6771\u4eac"]),
        (PIECE_RULES, "it's (so)", ["it", "'", "s", "(", "so", ")"]),
        (Rules(lowercase=False), "A crane\u00a0Came .", ["A", "crane", "Came", "."]),
    ],
)
def test_text_becomes_tokens_by_the_rules(tmp_path, rules, text, expected):
    tokenizer = Tokenizer.train([text] * 2, min_frequency=1, rules=rules, vocab_size=200)
    assert tokenizer.split(text) == expected
    assert tokenizer.encode_sentences([text]) == [tokenizer.ids(expected)] and UNK not in tokenizer.ids(expected)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    loaded = load_tokenizer(tmp_path)
    assert (loaded.rules, loaded.vocabulary) == (rules, tokenizer.vocabulary) and loaded.split(text) == expected


def test_the_most_frequent_words_of_a_limited_vocabulary():
    tokenizer = Tokenizer.train(["a b b c c c <unk> <unk> <unk> <unk>"], min_frequency=1, vocab_size=7)
    assert vocabulary(tokenizer) == [*SPECIAL_TOKENS, "c", "b"]


def test_half_a_character_is_refused_whatever_the_rules():
    for rules in (Rules(), Rules(lowercase=False), PIECE_RULES):
        tokenizer = Tokenizer.train(["a"], min_frequency=1, rules=rules, vocab_size=10)
        for call in (tokenizer.split, lambda text, one=tokenizer: one.encode_sentences([text])):
            with pytest.raises(BertjaxError, match="half a character"):
                call("a \ud800")
