"""The interface between the places that text comes from and those who read it."""

from collections.abc import Iterator
from typing import Protocol

from bertjax.config import Split
from bertjax.data.document import Document
from bertjax.data.sources.files import UserFiles
from bertjax.errors import BertjaxError


class Source(Protocol):
    """A text in splits, each a stream of documents."""

    @property
    def name(self) -> str:
        """Name of the text in messages, and of its files in the cache."""

    def fingerprint(self, split: Split) -> str:
        """Returns what changes whenever the documents of a split would."""

    def documents(self, split: Split) -> Iterator[Document]:
        """Streams a split's documents, as often as it is called: a vocabulary and a corpus take two passes."""

    def user_files(self, split: Split) -> UserFiles | None:
        """Returns the files of a text of any size, which several processes read at once; None for one small stream."""


class Unavailable(BertjaxError):
    """Says why a source cannot be had, so that another may take its place."""
