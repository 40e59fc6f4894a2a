"""The text of a benchmark: WikiText-2 where it is at hand, or one made up to its measure."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertjax.config import Config
from bertjax.config.recipes import save_config
from bertjax.data.batching.random import random_bits
from bertjax.data.prepare import Prepared, prepare
from bertjax.data.sources import wikitext
from bertjax.data.sources.wikitext_download import file_name
from bertjax.storage.cache import cache_folder


class Size(NamedTuple):
    """A text's measure; WikiText counts the end of a line as a token, which the words here do not."""

    lines: int
    words: int
    frequent: int  # words seen five times or more
    rare: int  # words seen three times


TRAIN = Size(lines=36_718, words=2_088_628 - 36_718, frequent=20_251, rare=13_000)
VALID = Size(lines=3_760, words=217_646 - 3_760, frequent=4_000, rare=0)

# WikiText-2's test split: the middle of each twentieth of its sentences and of its paragraphs, by length.
_WORDS_IN_SENTENCE = (7, 10, 13, 14, 16, 17, 18, 19, 21, 22, 23, 25, 27, 28, 30, 33, 35, 39, 45, 55)
_SENTENCES_IN_PARAGRAPH = (1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 7, 7, 8, 9, 12)
_TITLES_PER_LINE = 6_856 / 36_718  # leaves as many paragraphs as sentences of those lengths need
_TITLES_PER_ARTICLE = 11


def prepare_text(config: Config, folder: Path) -> tuple[Prepared, str]:
    """Builds the corpus in `folder`, writes the resolved recipe beside it, and describes the text.

    Nothing is downloaded: where a split of WikiText-2 is missing, a synthetic text takes the place of both.
    """
    data = config.data
    made_up = False
    if data.source == "wikitext-2":
        here = folder / "wikitext-2"
        here.mkdir(parents=True)
        wanted = (data.train_split, data.eval_split)
        found = wikitext.find_files(wanted, wikitext.folders(data.path, data.cache or cache_folder()))
        made_up = set(wanted) - set(found) != set()
        if made_up:
            write_synthetic(here / file_name("train"), TRAIN)
            write_synthetic(here / file_name("valid"), VALID)
            data = dataclasses.replace(data, train_split="train", eval_split="valid")
        else:
            for split, file in found.items():
                (here / file_name(split)).symlink_to(file.resolve())
        data = dataclasses.replace(data, path=str(here), fallback=None)
    data = dataclasses.replace(data, cache=str(folder / "cache"))
    prepared = prepare(dataclasses.replace(config, data=data))
    save_config(prepared.config, folder / "config.yaml")
    return prepared, "synthetic, of WikiText-2's measure" if made_up else prepared.train.name


def scaled(size: Size, share: float) -> Size:
    """Returns the size of a text of the same vocabulary, with that share of the lines and words."""
    return size._replace(lines=round(size.lines * share), words=round(size.words * share))


def write_synthetic(path: Path, size: Size) -> None:
    """Writes a text in WikiText's format with exactly these counts; always the same one."""
    titles = round(size.lines * _TITLES_PER_LINE)
    paragraphs = size.lines - 3 * titles  # a blank line on either side of a title
    sentences_p = _spread(_SENTENCES_IN_PARAGRAPH, paragraphs, seed=1)
    articles_t = np.arange(titles) % _TITLES_PER_ARTICLE == 0
    left = size.words - int(np.where(articles_t, 3, 5).sum()) - int(sentences_p.sum())  # titles' and full stops
    words_s = _spread(_WORDS_IN_SENTENCE, int(sentences_p.sum()), total=left, seed=2)
    words = iter(_words(left, size))
    lengths = iter(words_s.tolist())
    first_p = np.linspace(0, paragraphs, titles + 1).round().astype(int)
    with open(path, "w", encoding="utf-8") as file:
        for title in range(titles):
            file.write(" \n = Title = \n \n" if articles_t[title] else " \n = = Section = = \n \n")
            for count in sentences_p[first_p[title] : first_p[title + 1]].tolist():
                for _ in range(count):
                    file.write(f" {' '.join(next(words) for _ in range(next(lengths)))} .")
                file.write(" \n")


def _spread(values: tuple[int, ...], count: int, *, seed: int, total: int | None = None) -> np.ndarray:
    """Returns so many values in random order, each as often as the others, lengthened evenly to a sum of `total`."""
    spread = np.resize(values, count)
    if total is not None:
        each, over = divmod(total - int(spread.sum()), count)
        spread += each + (np.arange(count) < over)
    assert spread.min() >= 1
    return spread[_shuffle(count, seed)]


def _words(count: int, size: Size) -> list[str]:
    """Returns words after Zipf's law, the frequent ones five times or more, the rare ones three times, in random order.

    Among the frequent the full stop, which is not drawn here, gives its place to <unk>, which is in no count of words.
    """
    share_r = 1 / (np.arange(size.frequent) + 2.0)
    rest = count - 5 * size.frequent - 3 * size.rare
    counts_r = 5 + (rest * share_r / share_r.sum()).astype(np.int64)
    counts_r[0] += count - 3 * size.rare - counts_r.sum()
    counts_r = np.concatenate([counts_r, np.full(size.rare, 3)])
    vocabulary = np.array([f"w{rank}" if rank != 2 else "<unk>" for rank in range(len(counts_r))], object)
    return vocabulary[np.repeat(np.arange(len(counts_r)), counts_r)[_shuffle(count, seed=3)]].tolist()


def _shuffle(count: int, seed: int) -> np.ndarray:
    return np.argsort(random_bits(seed, np.arange(count)), kind="stable")
