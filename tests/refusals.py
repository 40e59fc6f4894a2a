"""Errors as users see them."""

from collections.abc import Callable
from typing import Any

import pytest

from bertjax.errors import BertjaxError


def refusal(call: Callable[..., Any], *args: object, **settings: object) -> str:
    """The message of one line with which a call is refused."""
    with pytest.raises(BertjaxError) as caught:
        call(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)
