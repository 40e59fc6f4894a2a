"""Paths as users give them."""

import os
import re
from pathlib import Path

from bertjax.errors import BertjaxError

# A path that has been a URL has lost a slash.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(s3a?|gs|gcs|az|abfss?|adl|hdfs|hf|r2|oss|https?|ftp|memory):/")
_FILE = re.compile(r"file:/(?://)?(?!/)")
NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # a flag of os.open: what is opened to be written is no symbolic link


def check_no_links(folder: Path, depth: int = 2) -> None:
    """Raises BertjaxError where something in a folder is a symbolic link: what is written there would go elsewhere.

    Args:
      folder: may be a link itself, and is that of its user's choice.
      depth: folders one in another that are looked into.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise BertjaxError(
                    f"{entry.path} is a symbolic link, and a run writes in its folder alone; put what it leads to in "
                    "its place, or remove it"
                )
            if depth > 1 and entry.is_dir():
                check_no_links(Path(entry.path), depth - 1)


def url_of(name: str | os.PathLike[str]) -> str | None:
    """Returns the URL that is given for a path; None where it is a path, as file:///tmp/a is too."""
    text = os.fspath(name)
    if _FILE.match(text) or (found := _URL.match(text)) is None:
        return None
    return f"{found[1] or found[2]}://{text[found.end() :]}"


def check_no_url(name: str | os.PathLike[str], key: str = "") -> None:
    """Raises BertjaxError where a URL is given for a path: it would become a folder here, of that name.

    Args:
      key: of the configuration, or an option, which it is given by.
    """
    if (url := url_of(name)) is not None:
        raise BertjaxError(
            f"{key}{'=' if key else ''}{url} is a URL, and this is read and written by paths alone; give a path, such "
            "as that of a folder at which the storage is mounted"
        )


def user_path(name: str | os.PathLike[str]) -> Path:
    """Returns a path in which `~` at the beginning is the home folder, and `~name` that of another user.

    A shell does so only at the beginning of a word: not in `--run_dir=~/runs`, nor in a recipe.

    Args:
      name: a path; file:///tmp/a is /tmp/a.

    Raises:
      BertjaxError: there is no such home folder, or it is a URL.
    """
    check_no_url(name)
    text = os.fspath(name)
    if found := _FILE.match(text):
        text = f"/{text[found.end() :]}"
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise BertjaxError(f"{text}: there is no such home folder; give the whole path") from None
