"""The way from a source's name in the configuration to the source."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bertjax.config import DataConfig, Split
from bertjax.data.sources.files import Files
from bertjax.data.sources.formats import Layout
from bertjax.data.sources.python_docs import PythonDocs
from bertjax.data.sources.source import Source, Unavailable
from bertjax.data.sources.wikitext import WikiText2
from bertjax.errors import BertjaxError
from bertjax.storage.fetch import here

_SOURCES: dict[str, Callable[[DataConfig, Sequence[Split], Path], Source]] = {
    "wikitext-2": lambda data, splits, cache: WikiText2(splits, data.path, cache),
    "python-docs": lambda data, splits, cache: PythonDocs(),
    "files": lambda data, splits, cache: Files(splits, str(data.path), data.eval_path, _layout(data)),
}


class Opened(NamedTuple):
    """A source, and why it is the fallback; None where it is the one that was asked for."""

    source: Source
    instead_of: str | None


def open_source(data: DataConfig, splits: Sequence[Split], cache: Path) -> Opened:
    """Opens `data.source`, or `data.fallback` for all splits where that cannot be had.

    Args:
      splits: those to be read.
      cache: the folder of downloads.

    Raises:
      BertjaxError: neither can be had, with every place tried and why it did not serve.
    """
    paths = [here(path, cache) if path else path for path in (data.path, data.eval_path)]
    data = dataclasses.replace(data, path=paths[0], eval_path=paths[1])
    try:
        return Opened(_SOURCES[data.source](data, splits, cache), None)
    except Unavailable as error:
        if data.fallback is None:
            remedy = "put the files into data.path, or set data.fallback: python-docs"
            raise BertjaxError(f"{error}: {remedy}") from None
        return Opened(_SOURCES[data.fallback](data, splits, cache), str(error))


def _layout(data: DataConfig) -> Layout:
    return Layout(data.document, data.sentence, data.language, data.text_field, data.on_bad)
