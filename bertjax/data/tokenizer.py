"""Words to ids and back, on the `tokenizers` library, whose `tokenizer.json` other tools read too."""

import contextlib
import itertools
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tokenizers import Tokenizer as Engine
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bertjax.errors import BertjaxError

# Special tokens have the first ids in every vocabulary, so that masks and padding need no look-up.
SPECIAL_TOKENS = ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL_TOKENS))
NUM_SPECIAL = len(SPECIAL_TOKENS)
# What is not white space in Unicode, as for the engine's pre-tokenizer, which took 180 bytes and 3 microseconds a word.
_WORD = re.compile("[^\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")


class Tokenizer:
    """Lower-cases text, splits it at white space, and numbers the words of a vocabulary."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._ids = engine.get_vocab()

    @classmethod
    def train(cls, sentences: Iterable[str], *, min_frequency: int) -> "Tokenizer":
        """A vocabulary of the words seen at least that often, most frequent first, after the special tokens.

        Raises BertjaxError where a sentence is not Unicode.
        """
        engine = _engine({token: number for number, token in enumerate(SPECIAL_TOKENS)})
        trainer = trainers.WordLevelTrainer(
            vocab_size=2**31, min_frequency=min_frequency, special_tokens=[], show_progress=False
        )
        stopped = threading.Event()
        feed = itertools.takewhile(lambda _: not stopped.is_set(), sentences)
        # In this thread, no signal's handler would run before the engine's end.
        with _unicode(), ThreadPoolExecutor(1) as other_thread:
            try:
                other_thread.submit(engine.train_from_iterator, feed, trainer).result()
            finally:
                stopped.set()
        counted = engine.get_vocab()
        # Text may hold special tokens as words: WikiText has <unk>. Numbered as words they would lose their ids.
        words = sorted(counted.keys() - set(SPECIAL_TOKENS), key=counted.__getitem__)
        return cls(_engine({token: number for number, token in enumerate([*SPECIAL_TOKENS, *words])}))

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Raises BertjaxError where the file is missing, damaged, or not one of ours."""
        try:
            engine = Engine.from_str(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise BertjaxError(f"{path} cannot be read: {error.strerror}; give a folder that has it") from error
        except Exception as error:  # the library raises bare Exceptions
            raise BertjaxError(f"{path} is not a tokenizer that can be read: {error}") from error
        vocabulary = engine.get_vocab()
        if tuple(sorted(vocabulary, key=vocabulary.__getitem__)[:NUM_SPECIAL]) != SPECIAL_TOKENS:
            raise BertjaxError(f"{path} does not begin with the tokens {' '.join(SPECIAL_TOKENS)}; give a run's own")
        numbered_in_order = sorted(vocabulary.values()) == list(range(len(vocabulary)))
        if not numbered_in_order or _engine(vocabulary).to_str() != engine.to_str():
            raise BertjaxError(f"{path} is not a tokenizer that bertjax made; give the tokenizer.json of a run")
        return cls(engine)

    def to_json(self) -> str:
        """The text of `tokenizer.json`."""
        return self._engine.to_str(pretty=True)

    @property
    def vocab_size(self) -> int:
        """Special tokens included."""
        return len(self._ids)

    def split(self, text: str) -> list[str]:
        """The words of a text, lower-cased as in training. Raises BertjaxError where it is not Unicode."""
        with _unicode():
            normal = self._engine.normalizer.normalize_str(text)
        return _WORD.findall(normal)

    def ids(self, words: Sequence[str]) -> list[int]:
        """A number for each word; `UNK` for one outside the vocabulary."""
        return [self._ids.get(word, UNK) for word in words]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The token of each id; `<unk>` for an id outside the vocabulary."""
        known = range(self.vocab_size)
        numbers = (number if number in known else UNK for number in map(int, ids))
        return [self._engine.id_to_token(number) or SPECIAL_TOKENS[UNK] for number in numbers]

    def encode_sentences(self, sentences: list[str]) -> list[list[int]]:
        """The ids of each sentence's words, computed on all cores. Raises BertjaxError where one is not Unicode."""
        with _unicode():
            return [encoding.ids for encoding in self._engine.encode_batch_fast(sentences)]


@contextlib.contextmanager
def _unicode() -> Iterator[None]:
    """Python's strings may hold lone surrogates, which no encoding can write."""
    try:
        yield
    except UnicodeEncodeError as error:
        text = error.object[max(0, error.start - 20) : error.start + 20]
        raise BertjaxError(f"text {text!r} holds half a character, a lone surrogate; give UTF-8") from error


def _engine(vocabulary: dict[str, int]) -> Engine:
    engine = Engine(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS[UNK]))
    engine.normalizer = normalizers.Lowercase()
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return engine
