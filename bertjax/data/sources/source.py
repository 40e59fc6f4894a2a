"""Where text comes from: WikiText-2, found or fetched, the corpus that Python itself carries, and the user's files."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bertjax.config import Source, Split
from bertjax.data.sources import files, python_docs, wikitext
from bertjax.data.sources.formats import LAYOUT, Layout
from bertjax.errors import BertjaxError

Document = list[list[str]]  # paragraphs, each a list of sentences


class Text(NamedTuple):
    name: str  # "wikitext-2/valid"
    fingerprint: str  # changes whenever the documents would
    documents: Callable[..., Iterator[Document]]  # may be called again: a build makes two passes
    user_files: files.UserFiles | None = None  # where they are, if they are the user's


class Texts(NamedTuple):
    source: Source  # which it is in the end
    splits: dict[Split, Text]
    instead_of: str | None  # why the fallback was taken; None if it was not


def open_texts(
    source: Source,
    splits: Sequence[Split],
    *,
    path: str | Path | None = None,
    eval_path: str | None = None,
    layout: Layout = LAYOUT,
    cache: str | Path,
    fallback: Source | None = None,
) -> Texts:
    """The splits of `source`, or of `fallback` if WikiText-2 cannot be had.

    WikiText-2's files are looked for in `path`, $BERTJAX_DATA/wikitext-2 and `cache`/wikitext-2, and what is
    missing is downloaded there. Raises BertjaxError with every place tried and why it did not serve.

    Args:
      path, eval_path, layout: of the user's files; where `eval_path` has what is held out, all of `path` is "train".
    """
    if source == "files":
        return _files(splits, str(path), eval_path, layout)
    if source == "python-docs":
        return _python_docs(splits, instead_of=None)
    tried = wikitext_folders(path, cache)
    home = tried[-1]
    found = find_files(splits, tried)
    missing = [split for split in splits if split not in found]
    try:
        wikitext.download(missing, home)
    except OSError as error:
        why = error.strerror or error
        raise BertjaxError(f"cannot write to {home} ({why}): set data.cache to a folder with room") from None
    except BertjaxError as error:
        reason = f"{error}; nor is it in {', '.join(map(str, tried))}"
        if fallback is None:
            remedy = "put the files into data.path, or set data.fallback: python-docs"
            raise BertjaxError(f"{reason}: {remedy}") from None
        return _python_docs(splits, instead_of=reason)
    found |= find_files(missing, [home])
    texts = {
        split: Text(f"wikitext-2/{split}", _fingerprint(found[split]), partial(wikitext.documents, found[split]))
        for split in splits
    }
    return Texts("wikitext-2", texts, instead_of=None)


def _python_docs(splits: Sequence[Split], instead_of: str | None) -> Texts:
    fingerprint = python_docs.fingerprint()
    texts = {
        split: Text(f"python-docs/{split}", f"{fingerprint}/{split}", partial(python_docs.documents, split))
        for split in splits
    }
    return Texts("python-docs", texts, instead_of)


def _files(splits: Sequence[Split], path: str, eval_path: str | None, layout: Layout) -> Texts:
    texts = {}
    for split in splits:
        found = files.find_files(path if eval_path is None or split == "train" else eval_path)
        of_user = files.UserFiles(tuple(found), layout, files.fingerprint(found, layout), divided=eval_path is None)
        texts[split] = Text(f"files/{split}", of_user.key(split), partial(of_user.documents, split), of_user)
    return Texts("files", texts, instead_of=None)


def wikitext_folders(path: str | Path | None, cache: str | Path) -> list[Path]:
    """Where WikiText-2's files are looked for, in this order; the last is where downloads go."""
    if path is not None and not Path(path).is_dir():
        raise BertjaxError(f"data.path={path} is not a folder: give the one with the wiki.*.tokens files")
    folders = [Path(path)] if path is not None else []
    if os.environ.get("BERTJAX_DATA"):
        folders.append(Path(os.environ["BERTJAX_DATA"], "wikitext-2"))
    return [*folders, Path(cache, "wikitext-2")]


def find_files(splits: Sequence[Split], folders: Sequence[Path]) -> dict[Split, Path]:
    """Each split's file in the first folder that has it."""
    found: dict[Split, Path] = {}
    for split in splits:
        for folder in folders:
            if os.path.isfile(folder / wikitext.file_name(split)):
                found.setdefault(split, folder / wikitext.file_name(split))
    return found


def _fingerprint(file: Path) -> str:
    """The git blob id of the content."""
    try:
        return wikitext.blob_id_of_file(file)
    except OSError as error:
        raise BertjaxError(f"cannot read {file}: {error.strerror or error}") from None
