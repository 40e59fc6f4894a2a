"""Questions whose answers a rule tells, in SQuAD's format or one by one, for tests of what learns from them."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from labelled_texts import WORDS

from bertjax.data.windows import NONE, AnswerExamples

COLOURS = ("red", "green", "blue")


def questions(count: int, seed: int) -> list[dict[str, Any]]:
    """Questions for the things of a colour, which are one word or two; one in four asks for one that is not there.

    The colour that is asked for tells the answer: without it, of a context's two things one is as good as the other.
    """
    choose = random.Random(seed)
    made = []
    for number in range(count):
        there = choose.sample(range(3), 2)
        things = [[choose.choice(WORDS[4 * one : 4 * one + 2])] for one in there]
        for one, thing in zip(there, things, strict=True):
            thing += choose.choices(WORDS[4 * one + 2 : 4 * one + 4], k=choose.randint(0, 1))
        asked = 3 - sum(there) if choose.random() < 0.25 else choose.choice(there)
        texts, starts = [], []
        if asked in there:
            texts = [" ".join(things[there.index(asked)])]
            starts = [0 if asked == there[0] else len(" ".join(things[0])) + 1]
        context = " ".join(word for thing in things for word in thing)
        answers = {"text": texts, "answer_start": starts}
        made.append({"id": f"q{number}", "question": f"{COLOURS[asked]}ish", "context": context, "answers": answers})
    return made


def write_squad(file: Path, made: list[dict[str, Any]]) -> Path:
    """Writes questions as SQuAD 2.0 does, each with a paragraph of its own."""
    paragraphs = []
    for one in made:
        pairs = zip(one["answers"]["text"], one["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        asked = {"id": one["id"], "question": one["question"], "answers": answers, "is_impossible": not answers}
        paragraphs.append({"context": one["context"], "qas": [asked]})
    data = [{"title": "made", "paragraphs": paragraphs}]
    file.write_text(json.dumps({"version": "v2.0", "data": data}), encoding="utf-8")
    return file


def answer_examples(lengths: Sequence[int], *, vocab_size: int = 60, seed: int = 0) -> AnswerExamples:
    """Windows of so many tokens with answers at random places, or in every third none; all else is at random too."""
    lengths_n, rng = np.array(lengths), np.random.default_rng(seed)
    answers_n2 = np.sort(rng.integers(1, lengths_n[:, None], (len(lengths), 2)), axis=1)
    answers_n2[::3] = NONE
    starts_n = np.concatenate(([0], np.cumsum(lengths_n)))
    ids = rng.integers(5, vocab_size, starts_n[-1]).astype(np.int32)
    return AnswerExamples("made", "", ids, starts_n, lengths_n // 2, answers_n2.astype(np.int32), [])
