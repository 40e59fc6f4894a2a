"""The libraries of the extra `serve`."""

import contextlib
from collections.abc import Iterator

from bertjax.errors import BertjaxError


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Says, where one of them is missing, how to install them. Raises BertjaxError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise BertjaxError(
            f"'bertjax serve' needs {error.name}, which is not installed; pip install 'bertjax[serve]'"
        ) from None
