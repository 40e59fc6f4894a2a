"""Outputs of commands: at a path, or made whole here and then uploaded to a URL."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bertjax.errors import BertjaxError
from bertjax.storage.cache import cache_folder, cache_key, writing_in
from bertjax.storage.paths import url_of, user_path
from bertjax.storage.remote import Remote

logger = logging.getLogger(__name__)

_LAST = ("config.json", "index.json")  # make a folder a model or an index: until it is there, nobody takes it for one


class Output(NamedTuple):
    """Where an output is written, and the URL that it is then uploaded to, if any."""

    path: Path
    url: str | None


def output(name: str) -> Output:
    """Returns the output of a name that is typed: of a URL, it is made in the cache folder."""
    if (url := url_of(name)) is None:
        return Output(user_path(name), None)
    url = url.rstrip("/")
    return Output(cache_folder() / "outbox" / cache_key(url) / PurePosixPath(url).name, url)


@contextlib.contextmanager
def delivered(option: str, out: Output | None) -> Iterator[Any]:
    """Yields where a file, or folder, is to be written, if any; where it has a URL it is uploaded there afterwards.

    A file appears there when it is whole. What is begun here stays when an error ends it, for those who can go on.

    Args:
      option: as it is typed, such as "--out".

    Raises:
      BertjaxError: something is there already, or it cannot be uploaded: then it stays here.
    """
    if out is None or out.url is None:
        yield out and out.path
        return
    remote = Remote(out.url, write=True)
    if remote.exists():
        raise BertjaxError(f"{option} {out.url} exists and is left as it is; give another name")
    if out.path.exists():
        raise BertjaxError(
            f"{option} {out.url} was made before and could not be uploaded: it is {out.path}; upload that, or remove it"
        )
    with writing_in(out.path):
        out.path.parent.mkdir(parents=True, exist_ok=True)
    yield out.path
    try:
        _upload(out.path, remote)
    except BertjaxError as error:
        raise BertjaxError(f"{option} is made and is {out.path}, but not uploaded: {error}") from error
    shutil.rmtree(out.path.parent)
    logger.info("uploaded to %s", out.url)


def _upload(path: Path, remote: Remote) -> None:
    if path.is_file():
        remote.upload(path)
        return
    files = sorted((file for file in path.rglob("*") if file.is_file()), key=lambda file: (file.name in _LAST, file))
    for file in files:
        remote.upload(file, file.relative_to(path).as_posix())
