"""Checks that the sections share. Each raises BertjaxError with the key, its value and the remedy."""

import os

from bertjax.errors import BertjaxError
from bertjax.storage.paths import user_path


def expand_homes(section: object, *names: str) -> None:
    """Puts home folders in place of `~` in these paths of a frozen dataclass; each may be None."""
    for name in names:
        value = getattr(section, name)
        if isinstance(value, str | os.PathLike) and os.fspath(value).startswith("~"):
            object.__setattr__(section, name, str(user_path(value)))


def require(condition: bool, message: str) -> None:
    """Raises BertjaxError with this message unless the condition holds."""
    if not condition:
        raise BertjaxError(message)


def require_at_least(section: object, prefix: str, least: float, *names: str) -> None:
    """Requires values of at least `least` and below 2**31.

    Args:
      section: the dataclass that has the values.
      prefix: the section's key in a recipe, such as "train".
      names: the values' names in the section.
    """
    for name in names:
        value = getattr(section, name)
        require(least <= value < 2**31, f"{prefix}.{name}={value} is impossible; give {least} or more, below 2**31")


def require_shares(section: object, prefix: str, *names: str) -> None:
    """Requires values above 0 and at most 1, or None; the arguments are those of `require_at_least`."""
    for name in names:
        value = getattr(section, name)
        require(value is None or 0 < value <= 1, f"{prefix}.{name}={value} is not a share; give 0 < {name} <= 1")
