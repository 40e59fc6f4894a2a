"""Vocabularies that are made of a text."""

import itertools
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tokenizers import trainers

from bertjax.data.tokenizer.engine import make_engine, only_unicode
from bertjax.data.tokenizer.marks import INSIDE
from bertjax.data.tokenizer.rules import NUM_SPECIAL, Rules

BERTS_SIZE = 30522
TRAINING = 2  # raise it with every change of which pieces come out: it is part of the key in the cache
# Of the characters of a text a vocabulary of pieces has the commonest, up to this share of them all, and as many as
# BERT's in any case: a word with one that is left out is unknown.
_COVERAGE, _ALPHABET = 0.9999, 1000
_SENTENCES_AT_ONCE = 1 << 14


def train_vocabulary(
    sentences: Iterable[str], rules: Rules, min_frequency: int, vocab_size: int | None
) -> dict[str, int]:
    """Returns the number of every token of a new vocabulary, made as `Tokenizer.train` says."""
    settings: dict[str, Any] = {"min_frequency": min_frequency, "show_progress": False}
    if rules.kind == "word":
        # Text may hold special tokens as words, so there is room for these too.
        room = (vocab_size or 2**31 - 5) + NUM_SPECIAL
        counted = _trained(trainers.WordLevelTrainer(vocab_size=room, **settings), sentences, rules)
    else:
        vocab_size = vocab_size or BERTS_SIZE
        letters = _trained(trainers.WordPieceTrainer(vocab_size=1, **settings), sentences, rules).keys()
        alphabet = _alphabet(letters - set(rules.special), sentences, rules, room=vocab_size - NUM_SPECIAL)
        # Numbered in the order in which the engine comes upon them, which is never the same, they would decide
        # which of two equally frequent pieces comes first.
        first = [*rules.special_tokens, *sorted(letters & {INSIDE + letter for letter in alphabet})]
        settings |= {"initial_alphabet": alphabet, "limit_alphabet": len(alphabet)}
        trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, **settings)
        counted = _trained(trainer, sentences, rules)
    # Text may hold special tokens as words: WikiText has <unk>. Numbered as words they would lose their ids.
    words = sorted(counted.keys() - set(rules.special), key=counted.__getitem__)
    words = words[: vocab_size and vocab_size - NUM_SPECIAL]
    return {token: number for number, token in enumerate([*rules.special_tokens, *words])}


def _trained(trainer: trainers.Trainer, sentences: Iterable[str], rules: Rules) -> dict[str, int]:
    """Returns the vocabulary that a trainer makes, in another thread: in this one no signal would be heard."""
    engine = make_engine({token: number for number, token in enumerate(rules.special_tokens)}, rules)
    stopped = threading.Event()
    feed = itertools.takewhile(lambda _: not stopped.is_set(), sentences)
    with only_unicode(), ThreadPoolExecutor(1) as other_thread:
        try:
            other_thread.submit(engine.train_from_iterator, feed, trainer).result()
        finally:
            stopped.set()
    return engine.get_vocab()


def _alphabet(letters: Set[str], sentences: Iterable[str], rules: Rules, *, room: int) -> list[str]:
    """Chooses the characters of a vocabulary of pieces: the commonest, of equally common ones the first in Unicode.

    The engine's own limit leaves it to chance which of equally common ones stay.

    Args:
      letters: all characters of the text, and those that go on with a word once more, after "##".
      room: tokens that the vocabulary may have.
    """
    alphabet = sorted(letter for letter in letters if len(letter) == 1)
    if len(letters) <= room and len(alphabet) <= _ALPHABET:
        return alphabet
    counts = _count_characters(sentences, rules)
    alphabet.sort(key=lambda letter: -counts[letter])
    so_far = np.cumsum([counts[letter] for letter in alphabet])
    enough = int(np.searchsorted(so_far, _COVERAGE * so_far[-1])) + 1
    tokens = np.cumsum([1 + (INSIDE + letter in letters) for letter in alphabet])
    return alphabet[: min(max(enough, _ALPHABET), int(np.searchsorted(tokens, room, "right")))]


def _count_characters(sentences: Iterable[str], rules: Rules) -> Counter[str]:
    """Counts characters as the normaliser makes them, which looks at each by itself."""
    counts_c = np.zeros(sys.maxunicode + 1, np.int64)
    there = iter(sentences)
    while some := list(itertools.islice(there, _SENTENCES_AT_ONCE)):
        codes = np.frombuffer("".join(some).encode("utf-32-le"), np.uint32)
        counts_c += np.bincount(codes, minlength=len(counts_c))
    normalizer = make_engine({token: number for number, token in enumerate(rules.special_tokens)}, rules).normalizer
    counts: Counter[str] = Counter()
    for code in np.flatnonzero(counts_c):
        for letter in normalizer.normalize_str(chr(code)):
            counts[letter] += int(counts_c[code])
    return counts
