"""Paths as users give them."""

import os
from pathlib import Path

from bertjax.errors import BertjaxError


def user_path(name: str | os.PathLike[str]) -> Path:
    """Returns a path in which `~` at the beginning is the home folder, and `~name` that of another user.

    A shell does so only at the beginning of a word: not in `--run_dir=~/runs`, nor in a recipe.

    Raises:
      BertjaxError: there is no such home folder.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise BertjaxError(f"{os.fspath(name)}: there is no such home folder; give the whole path") from None
