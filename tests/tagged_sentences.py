"""Sentences whose words have tags by a rule, or at random, for tests of what learns from them."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from labelled_texts import WORDS

from bertjax.data.tagged import NO_TAG, TaggedExamples


def tagged_examples(
    lengths: Sequence[int], *, vocab_size: int = 60, num_labels: int = 3, seed: int = 0
) -> TaggedExamples:
    """Sentences of so many tokens, all but the first and the last of which are words with a tag, or every fourth none.

    The number of a token among all is in its id and label: they tell where it came from.
    """
    lengths_n, rng = np.array(lengths), np.random.default_rng(seed)
    starts_n = np.concatenate(([0], np.cumsum(lengths_n)))
    ids, labels_m = rng.integers(5, vocab_size, starts_n[-1]), rng.integers(0, num_labels, starts_n[-1])
    labels_m[3::4] = labels_m[starts_n[:-1]] = labels_m[starts_n[1:] - 1] = NO_TAG
    words = np.flatnonzero(labels_m >= 0)
    word_starts_n = np.searchsorted(words, starts_n)
    arrays = (starts_n, labels_m.astype(np.int32), word_starts_n, words, labels_m[words].astype(np.int32))
    return TaggedExamples("made", "", ids.astype(np.int32), *arrays)


def sentences(count: int, seed: int) -> list[tuple[list[str], list[str]]]:
    """Words and tags of sentences with names, of the type that a word somewhere in the sentence tells.

    That word, and whether a name is a first or a last one, tell every tag; without that word two thirds are wrong.
    """
    choose = random.Random(seed)
    made = []
    for _ in range(count):
        colour = choose.choice(["red", "green", "blue"])
        words, tags = [], []
        for _ in range(choose.randint(1, 4)):
            named, surname = choose.random() < 0.6, choose.random() < 0.5
            words.append(WORDS[choose.randint(0, 2) if named else choose.randint(6, 11)])
            tags.append(f"B-{colour}" if named else "O")
            if named and surname:
                words.append(WORDS[choose.randint(3, 5)])
                tags.append(f"I-{colour}")
        at = choose.choice([place for place in range(len(words) + 1) if tags[place : place + 1] != [f"I-{colour}"]])
        words.insert(at, f"{colour}ish")
        tags.insert(at, "O")
        made.append((words, tags))
    return made


def write_columns(file: Path, made: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Path:
    """Writes sentences in two columns."""
    lines = ("".join(f"{word}\t{tag}\n" for word, tag in zip(*one, strict=True)) for one in made)
    file.write_text("\n".join(lines), encoding="utf-8")
    return file
