"""The one error a user can mend."""

import re

_LONGEST = 2000  # characters of a message: what was given is in it, and may be a page
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]+")  # what begins a line, or would speak to the terminal


class BertjaxError(Exception):
    """Bad input. The message is one line: what was given, what was needed, what to do.

    The command line prints it and exits with code 2; anything else that escapes is a bug of ours.
    """

    def __init__(self, message: str):
        line = _CONTROL.sub(" ", message)
        super().__init__(line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ...")
