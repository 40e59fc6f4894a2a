"""What is wrong with a request, before it is known in which client's words it is told."""

from collections.abc import Mapping


class Refused(Exception):
    """A request that is not answered; the message is one line that says what to change.

    Attributes:
      status: of HTTP.
      message: for a person.
      code: for a program, such as "model_not_found".
      param: the field of the request that is meant.
      headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "invalid_request",
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})


def wrong(message: str, param: str | None = None) -> Refused:
    """Returns the error of a field whose value cannot be used."""
    return Refused(422, message, "invalid_value", param=param)


def empty(param: str) -> Refused:
    """Returns the error of a field that has nothing in it."""
    return Refused(400, f"{param} is empty; give at least one text, of one character or more", "empty", param=param)


def too_large(message: str, code: str, param: str | None = None) -> Refused:
    """Returns the error of a request that is too large."""
    return Refused(413, message, code, param=param)
