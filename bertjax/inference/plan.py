"""How vectors are made of texts: as asked for, else as sentence-transformers' files in the model's folder say."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from bertjax.config.checks import as_type
from bertjax.data.reader import Item, Reader, TokenIds
from bertjax.data.tokenizer.template import A
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.sentence_transformers import SentenceSettings
from bertjax.inference.engine import Pooling, Recipe, delayed
from bertjax.inference.inputs import Text, as_items, as_text, elements


class Plan(NamedTuple):
    """How vectors are made of texts."""

    recipe: Recipe
    reader: Reader
    prompt: str  # put before each text

    def read(self, items: list[Item], name: Callable[[int], str]) -> list[TokenIds]:
        """Returns the token ids of each item; the arguments and errors are those of `Reader.read_all`."""
        return self.reader.read_all(self._prompted(items), name)

    def read_ahead(
        self, windows: Iterable[Text | Iterable[Text]], name: Callable[[int], str]
    ) -> Iterator[list[TokenIds]]:
        """Yields the token ids of each window, read in another thread while the caller is at the window before."""
        with ThreadPoolExecutor(1) as other_thread:
            submitted = (other_thread.submit(self.read, items, name) for items in _items(windows, name))
            for read in delayed(submitted, 1):
                yield read.result()

    def _prompted(self, items: list[Item]) -> list[Item]:
        return [(self.prompt + first, second) for first, second in items] if self.prompt else items


def make_plan(
    tokenizer: Tokenizer,
    max_position: int,
    sentence: SentenceSettings,
    *,
    pooling: Pooling | None,
    normalize: bool | None,
    truncate: bool,
    prompt: str | None,
) -> Plan:
    """Returns how vectors are made; `pooling` and what follows it are as for `Encoder.encode`, and so are errors.

    Args:
      tokenizer: the model's.
      max_position: tokens that the model can read.
      sentence: what is done where nothing is asked for.
    """
    pooling, normalize = as_type(pooling, Pooling | None, "pooling"), as_type(normalize, bool | None, "normalize")
    truncate = as_type(truncate, bool, "truncate")
    prompt = None if prompt is None else as_text(prompt, "the prompt")
    reader = Reader(tokenizer, max_position, truncate=truncate)
    if pooling is not None:
        return Plan(Recipe((pooling,), normalize=bool(normalize)), reader, prompt or "")
    prompt = sentence.default_prompt if prompt is None else prompt
    if sentence.max_length is not None and sentence.max_length < max_position:
        limit = "the {} tokens that the folder sets (max_seq_length)"
        reader = Reader(tokenizer, sentence.max_length, truncate=truncate, limit=limit)
    skip = 0
    if prompt and not sentence.pools_prompt:
        whole = Reader(tokenizer, max_position, truncate=True)
        alone = whole.read(tokenizer.split(prompt), None, lambda: "the prompt")
        skip = len(alone.ids) - (tokenizer.template.single.places[-1] != A)  # all but a <sep> after it
    normalize = sentence.normalize if normalize is None else normalize
    return Plan(Recipe(sentence.pooling, sentence.layers, skip, normalize), reader, prompt)


def _items(windows: Iterable[Text | Iterable[Text]], name: Callable[[int], str]) -> Iterator[list[Item]]:
    """Yields the items of each window, read in the caller's own thread; their numbers go on from window to window."""
    first = 0
    for window in elements(windows, "windows"):
        items = as_items(window, name=name, first=first)
        yield items
        first += len(items)
