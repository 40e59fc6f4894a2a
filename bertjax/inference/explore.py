"""Questions to a trained model, and their answers as plain data: what the page of `bertjax explore` shows."""

import dataclasses
import functools
import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bertjax.config.checks import as_type
from bertjax.errors import BertjaxError
from bertjax.inference.encoder import Encoder
from bertjax.inference.neighbours import cosines
from bertjax.inference.text_lines import open_lines

T = TypeVar("T")

LONGEST_TEXT = 2_000  # characters of a text that is typed
MOST_LINES = 5_000  # of the corpus: to encode them all a large model takes a minute on a CPU
_READ = 200_000  # lines of a file, of which these are
_MOST_USES = 200  # of a word, on its map
_NEAREST = 10
_AT_ONCE = 256  # lines that are encoded before anything else is heeded
_SHOWN = 400  # characters of a line of the corpus


class Corpus(NamedTuple):
    """Lines that vectors are compared with."""

    name: str
    lines: list[str]


class Explorer:
    """A model that is asked from several threads, one after the other.

    Args:
      corpus: without one there are no neighbours and no senses; its name says why.
    """

    def __init__(self, encoder: Encoder, corpus: Corpus):
        self.encoder, self.corpus = encoder, corpus
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._uses = functools.lru_cache(maxsize=32)(self._find_uses)

    def answer(self, question: str, asked: Any) -> dict[str, Any]:
        """Returns the answer to a question, with a line about each word that the vocabulary lacks.

        Args:
          question: "guesses", "neighbours", "senses" or "similarity".
          asked: a dict of texts, by the names of the question's arguments.

        Raises:
          BertjaxError: there is no such question, or it cannot be answered.
        """
        questions: dict[str, tuple[Callable[..., dict[str, Any]], tuple[str, ...]]] = {
            "guesses": (self._guesses, ("text",)),
            "neighbours": (self._neighbours, ("text",)),
            "senses": (self._senses, ("word",)),
            "similarity": (self._similarity, ("first", "second")),
        }
        if question not in questions:
            raise BertjaxError(f"there is no question {question!r}; ask one of {', '.join(questions)}")
        find, names = questions[question]
        texts = _texts(asked, names)
        with self._lock, warnings.catch_warnings(record=True) as said:
            self._go_on()
            warnings.simplefilter("always")
            found = find(*texts)
        return found | {"notes": list(dict.fromkeys(str(warning.message) for warning in said))}

    def end(self) -> None:
        """Answers no more, and returns when the answer under way is given or given up: no process may end amid it."""
        self._ended.set()
        with self._lock:
            pass

    def _guesses(self, text: str) -> dict[str, Any]:
        masks = self.encoder.fill_mask(text)
        return {"masks": [[{"word": word, "probability": p} for word, p in guesses] for guesses in masks]}

    def _neighbours(self, text: str) -> dict[str, Any]:
        vector_d = self.encoder.encode([text], truncate=True)[0]
        near_n = cosines(np.concatenate([vector_d[None], self._vectors_nd]))[0, 1:]
        best = np.argsort(-near_n, kind="stable")[:_NEAREST].tolist()
        return {"lines": [{"text": self._line(n), "cosine": float(near_n[n])} for n in best]}

    def _senses(self, word: str) -> dict[str, Any]:
        numbers, vectors_nd = self._uses(word)
        points_n2 = on_a_map(vectors_nd)
        return {
            "word": word,
            "uses": [
                {"text": self._line(number), "x": float(x), "y": float(y)}
                for number, (x, y) in zip(numbers, points_n2, strict=True)
            ],
        }

    def _similarity(self, first: str, second: str) -> dict[str, Any]:
        split = [self.encoder.tokenizer.split(text) for text in (first, second)]
        read = [self.encoder.tokens_read(words) for words in split]
        vectors = self.encoder.encode([first, second], pooling="tokens")
        whole_2d = self.encoder.encode([first, second])
        near_ts = cosines(np.concatenate(vectors))[: len(vectors[0]), len(vectors[0]) :]
        return {
            "first": read[0],
            "second": read[1],
            "cosines": np.round(near_ts, 4).tolist(),
            "whole": float(cosines(whole_2d)[0, 1]),
        }

    @functools.cached_property
    def _vectors_nd(self) -> np.ndarray:
        """The vector of each line, made when it is first asked for."""
        windows = (self._lines[start : start + _AT_ONCE] for start in range(0, len(self._lines), _AT_ONCE))
        vectors = []
        for of_window in self.encoder.stream(windows, truncate=True):
            vectors.append(of_window)
            self._go_on()
        return np.concatenate(vectors)

    def _go_on(self) -> None:
        if self._ended.is_set():
            raise BertjaxError("bertjax explore has been ended")

    @functools.cached_property
    def _tokens(self) -> list[list[str]]:
        return self.encoder.tokenizer.split_all(self._lines)

    @property
    def _lines(self) -> list[str]:
        if not self.corpus.lines:
            raise BertjaxError(f"there is no text to compare with: {self.corpus.name}; start with --text FILE")
        return self.corpus.lines

    def _line(self, number: int) -> str:
        text = self.corpus.lines[number]
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

    def _find_uses(self, word: str) -> tuple[list[int], np.ndarray]:
        """The numbers of lines that use a word, from all over the corpus, and its vector in each use."""
        needle, lines = self.encoder.tokenizer.split(word), self._lines
        if not needle:
            raise BertjaxError("the word is empty; give one")
        with_it = [number for number, tokens in enumerate(self._tokens) if needle[0] in tokens]
        some = np.linspace(0, len(with_it) - 1, min(len(with_it), _MOST_USES)).astype(int).tolist()
        numbers = [with_it[one] for one in some]
        uses = self.encoder.word_vectors(word, [lines[number] for number in numbers], truncate=True) if numbers else []
        if len(uses) < 2:
            times = "once" if uses else "nowhere"
            raise BertjaxError(f"{word!r} is {times} in {self.corpus.name}; give a word that is there twice or more")
        uses = uses[:_MOST_USES]
        return [numbers[use.text] for use in uses], np.stack([use.vector_d for use in uses])


def on_a_map(vectors_nd: np.ndarray) -> np.ndarray:
    """Returns the two main axes of variation of vectors (their principal components), scaled to -1..1: [n, 2]."""
    centred_nd = vectors_nd - vectors_nd.mean(axis=0)
    left_nk, scales_k, _ = np.linalg.svd(centred_nd, full_matrices=False)
    points_n2 = np.zeros((len(vectors_nd), 2))
    axes = min(2, len(scales_k))
    points_n2[:, :axes] = left_nk[:, :axes] * scales_k[:axes]
    # An axis may point either way: so that a map stays as it is, the point furthest from the middle is at its right.
    furthest = np.abs(points_n2).argmax(axis=0)
    points_n2 *= np.where(points_n2[furthest, range(2)] < 0, -1, 1)
    return points_n2 / (np.abs(points_n2).max() or 1)


def lines_of_file(file: str) -> Corpus:
    """Reads the lines of a text, which may be .gz or .zst: those from all over its beginning, if they are too many.

    Raises:
      BertjaxError: it cannot be read, is not UTF-8, or has no lines.
    """
    lines = []
    with open_lines(file, "--text") as (read, _):
        for number, line in enumerate(itertools.islice(read, _READ), 1):
            try:
                lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
            except UnicodeDecodeError as error:
                where = f"line {number} of {file}"
                raise BertjaxError(f"{where} is not UTF-8 text (byte {error.start + 1}); convert it first") from None
    if not (lines := [line for line in lines if line]):
        raise BertjaxError(f"--text {file} has no lines; give a file of texts, one a line")
    return Corpus(file, _every_so_many(lines))


def lines_of_run(folder: Path) -> Corpus:
    """Returns sentences of the text that was held out from a run, as its vocabulary has them.

    Raises:
      BertjaxError: the folder is no run's, or its text cannot be had.
    """
    from bertjax.data.prepare import prepare_held_out
    from bertjax.runs.folder import RunFolder

    run = RunFolder(folder)
    config, tokenizer = run.config(), run.tokenizer()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, fallback=None))
    corpus, _ = prepare_held_out(config, tokenizer)
    numbers = _every_so_many(range(len(corpus.sentences) - 1))
    ids = [corpus.ids[slice(*corpus.sentences[number : number + 2])] for number in numbers]
    return Corpus(corpus.name, [tokenizer.text(of_one) for of_one in ids])


def _every_so_many(items: Sequence[T]) -> list[T]:
    places = np.linspace(0, len(items) - 1, min(len(items), MOST_LINES)).astype(int)
    return [items[place] for place in places.tolist()]


def _texts(asked: Any, names: Sequence[str]) -> list[str]:
    """Returns the texts that were asked about, and says what is wrong with them."""
    asked = as_type(asked, dict, "the question")
    if asked.keys() != set(names):
        raise BertjaxError(f"the question has {', '.join(map(repr, asked)) or 'nothing'}; give {', '.join(names)}")
    texts = [as_type(asked[name], str, name) for name in names]
    for name, text in zip(names, texts, strict=True):
        if not text.strip():
            raise BertjaxError(f"{name} is empty; write something")
        if len(text) > LONGEST_TEXT:
            raise BertjaxError(f"{name} has {len(text):,} characters; give {LONGEST_TEXT:,} at most")
    return texts
